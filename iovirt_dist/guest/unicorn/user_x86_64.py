"""A 64-bit x86 CPU in user mode: Unicorn in long mode with page tables, at privilege level 3.

Theory of operation. The program runs behind page tables of ours, in which its pages are the only ones it may access, so
that a bad access is an ordinary page fault, which arrives in the interrupt hook with exact registers, as all exceptions
do except #UD. SYSCALL has a hook of its own and ends its translated block; the hook stops Unicorn and the call is
carried out between two runs. IN and OUT call hooks at any privilege level; there is no I/O permission bitmap, so they
are general-protection faults. What runs behind one in its block changes only a program that is as good as dead.

The privilege level is written into a saved context (`x86_state`), as it can be done no other way without executing
code at level 0.
"""

from __future__ import annotations

from typing import Final

from unicorn.unicorn_const import (
    UC_ARCH_X86,
    UC_HOOK_INSN,
    UC_HOOK_INTR,
    UC_MODE_64,
)
from unicorn.x86_const import (
    UC_X86_INS_IN,
    UC_X86_INS_OUT,
    UC_X86_INS_SYSCALL,
    UC_X86_REG_CR0,
    UC_X86_REG_CR2,
    UC_X86_REG_CR3,
    UC_X86_REG_CR4,
    UC_X86_REG_CS,
    UC_X86_REG_EFLAGS,
    UC_X86_REG_FPCW,
    UC_X86_REG_FPTAG,
    UC_X86_REG_FS_BASE,
    UC_X86_REG_MSR,
    UC_X86_REG_MXCSR,
    UC_X86_REG_R8,
    UC_X86_REG_R9,
    UC_X86_REG_R10,
    UC_X86_REG_R11,
    UC_X86_REG_RAX,
    UC_X86_REG_RCX,
    UC_X86_REG_RDI,
    UC_X86_REG_RDX,
    UC_X86_REG_RIP,
    UC_X86_REG_RSI,
)

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.engine import Stop, StopKind
from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.guest.program.architecture import X86_64
from iovirt_dist.guest.program.engine import UserStop, UserStopKind
from iovirt_dist.guest.program.tables import LONG_MODE
from iovirt_dist.guest.unicorn.base import UnicornEngine
from iovirt_dist.guest.unicorn.registers import RegisterBatch
from iovirt_dist.guest.unicorn.user import flush_tlb, no_devices
from iovirt_dist.guest.unicorn.user_x86 import (
    CR0,
    CR4,
    EFER,
    MSR_EFER,
    fault_of,
    user_state,
)
from iovirt_dist.guest.unicorn.whole_blocks import stop_between_blocks
from iovirt_dist.guest.unicorn.x86_state import StateBlock
from iovirt_dist.guest.x86.faults import GENERAL_PROTECTION, INVALID_OPCODE, PAGE_FAULT
from iovirt_dist.guest.x86.state import Segment

_WORD: Final = (1 << 64) - 1
_CALL: Final = (
    UC_X86_REG_RAX,
    UC_X86_REG_RDI,
    UC_X86_REG_RSI,
    UC_X86_REG_RDX,
    UC_X86_REG_R10,
    UC_X86_REG_R8,
    UC_X86_REG_R9,
)
_RESULT: Final = (UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_R11)
_GDT: Final = 0xFFFF_FFFF_FFFF_E000
# Selectors as in Linux. D is set beside L: the emulator's flags of a 64-bit segment include those of a 32-bit one.
_CODE: Final = Segment(0x33, 0, 0xFFFF_FFFF, 0xEF_FB00)
_STACK: Final = Segment(0x2B, 0, 0xFFFF_FFFF, 0xCF_F300)
_DESCRIPTORS: Final = {4: 0x00CF_FB00_0000_FFFF, 5: 0x00CF_F300_0000_FFFF, 6: 0x00AF_FB00_0000_FFFF}
_SYSTEM_CALL: Final = Stop(StopKind.EXCEPTION, 0)


class UnicornUserX8664(UnicornEngine):
    """Implements `iovirt_dist.guest.program.engine.UserEngine`.

    Args:
        ram_bytes: Physical memory, a multiple of 4 KiB.

    Raises:
        LocalError: The installed Unicorn cannot be used (see `x86_state`).
    """

    def __init__(self, ram_bytes: int) -> None:
        super().__init__(UC_ARCH_X86, UC_MODE_64, no_devices(GENERAL_PROTECTION))
        stop_between_blocks(self.uc)
        self._block = StateBlock(self.uc)
        self._call = RegisterBatch(self.uc, _CALL)
        self._result = RegisterBatch(self.uc, _RESULT)
        self._pristine = self.uc.context_save()
        self._ram_bytes = ram_bytes
        self.map_ram(0, ram_bytes)
        self.uc.hook_add(UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(UC_HOOK_INSN, self._on_system_call, None, 1, 0, UC_X86_INS_SYSCALL)
        self.uc.hook_add(UC_HOOK_INSN, self._on_in, None, 1, 0, UC_X86_INS_IN)
        self.uc.hook_add(UC_HOOK_INSN, self._on_out, None, 1, 0, UC_X86_INS_OUT)
        self._pc = 0

    def reset(self) -> AddressSpace:
        """Forget everything, and return the empty address space of the next program."""
        self.clear_ram()
        space = AddressSpace(self, 0, self._ram_bytes, LONG_MODE, X86_64.user_end, lambda: flush_tlb(self.uc))
        space.map_system(_GDT, b"".join(_DESCRIPTORS.get(index, 0).to_bytes(8, "little") for index in range(16)))
        self.uc.context_restore(self._pristine)
        for register, value in (
            (UC_X86_REG_CR4, CR4),
            (UC_X86_REG_CR3, space.root),
            (UC_X86_REG_MSR, (MSR_EFER, EFER)),
            (UC_X86_REG_CR0, CR0),
            (UC_X86_REG_FPCW, 0x37F),
            (UC_X86_REG_FPTAG, 0xFFFF),
            (UC_X86_REG_MXCSR, 0x1F80),
        ):
            self.uc.reg_write(register, value)
        return space

    def start(self, pc: int, stack_pointer: int) -> None:
        """Set all registers for a program's first instruction; its address space must be filled.

        Raises:
            LocalError: The installed Unicorn's context is not what we think.
        """
        self._block.save()
        self._block.load(user_state(self._block.state(0), pc, stack_pointer, _CODE, _STACK, _GDT))
        self._block.restore()
        flush_tlb(self.uc)
        if self.uc.reg_read(UC_X86_REG_RIP) != pc or self.uc.reg_read(UC_X86_REG_CS) != _CODE.selector:
            raise LocalError("cannot enter user mode", "unicorn", "install unicorn 2.1.4")
        self._pc = pc

    def run(self) -> UserStop:
        """Execute until something must be done."""
        while True:
            status = self._execute(self._pc)
            stop = self._stop
            if stop is None or stop is _SYSTEM_CALL:
                self._pc = self.uc.reg_read(UC_X86_REG_RIP)
            if stop is _SYSTEM_CALL:
                return UserStop(UserStopKind.SYSTEM_CALL)
            if stop is not None:
                return fault_of(stop)
            if status:
                return fault_of(Stop(StopKind.EXCEPTION, self._pc, INVALID_OPCODE))
            if self._kicked:
                self._kicked = False
                return UserStop(UserStopKind.KICKED)

    def call(self) -> tuple[int, tuple[int, ...]]:
        """After SYSTEM_CALL: RAX (Linux takes its lower half), and RDI, RSI, RDX, R10, R8, R9."""
        number, *arguments = self._call.read()
        return number & 0xFFFF_FFFF, tuple(arguments)

    def finish_call(self, result: int) -> None:
        """Set RAX, and RCX and R11 as SYSCALL leaves them (Intel SDM volume 2)."""
        self._result.write((result & _WORD, self._pc, self.uc.reg_read(UC_X86_REG_EFLAGS)))

    def set_thread_pointer(self, value: int) -> None:
        """Set FS.base."""
        self.uc.reg_write(UC_X86_REG_FS_BASE, value)

    # Hooks

    def _on_exception(self, _uc: object, vector: int, _data: object) -> None:
        self._inside = True
        address = self.uc.reg_read(UC_X86_REG_CR2) if vector == PAGE_FAULT else 0
        self._stop_with(Stop(StopKind.EXCEPTION, self.uc.reg_read(UC_X86_REG_RIP), vector, address=address))

    def _on_system_call(self, _uc: object, _data: object) -> None:
        self._inside = True
        self._stop_with(_SYSTEM_CALL)

    def _on_in(self, _uc: object, _port: int, _width: int, _data: object) -> int:
        self._inside = True
        self._stop_with(Stop(StopKind.EXCEPTION, self.uc.reg_read(UC_X86_REG_RIP), GENERAL_PROTECTION))
        return 0

    def _on_out(self, _uc: object, _port: int, _width: int, _value: int, _data: object) -> None:
        self._on_in(None, 0, 0, None)
