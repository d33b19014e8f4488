"""A 32-bit x86 CPU in user mode: the engine of the `pc` machine behind page tables of ours, at privilege level 3.

Paging is PAE, so that memory can be made not executable. The descriptor table, in a page that the program cannot
access, holds what Linux has there, and the segments for thread-local storage that the program loads into GS itself.
"""

from __future__ import annotations

from typing import Final

from unicorn.x86_const import (
    UC_X86_REG_EAX,
    UC_X86_REG_EBP,
    UC_X86_REG_EBX,
    UC_X86_REG_ECX,
    UC_X86_REG_EDI,
    UC_X86_REG_EDX,
    UC_X86_REG_ESI,
    UC_X86_REG_FPCW,
    UC_X86_REG_FPTAG,
    UC_X86_REG_MSR,
)

from iovirt_dist.guest.engine import Stop
from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.guest.program.architecture import I386
from iovirt_dist.guest.program.engine import UserStop, UserStopKind
from iovirt_dist.guest.program.tables import PAE
from iovirt_dist.guest.unicorn.machine_user import MachineUserEngine, UserMemoryMap
from iovirt_dist.guest.unicorn.user import no_devices
from iovirt_dist.guest.unicorn.user_x86 import CR0, CR4, EFER_NXE, MSR_EFER, fault_of, user_state
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.faults import GENERAL_PROTECTION
from iovirt_dist.guest.x86.state import Segment

SYSTEM_CALL_VECTOR: Final = 0x80
_CALL: Final = (
    UC_X86_REG_EAX,
    UC_X86_REG_EBX,
    UC_X86_REG_ECX,
    UC_X86_REG_EDX,
    UC_X86_REG_ESI,
    UC_X86_REG_EDI,
    UC_X86_REG_EBP,
)
_GDT: Final = 0xFFFF_E000
_CODE: Final = Segment(0x73, 0, 0xFFFF_FFFF, 0xCF_FB00)
_DATA: Final = Segment(0x7B, 0, 0xFFFF_FFFF, 0xCF_F300)
_CODE_DESCRIPTOR: Final = 0x00CF_FB00_0000_FFFF
_DATA_DESCRIPTOR: Final = 0x00CF_F300_0000_FFFF
_TLS_ENTRY: Final = 6
"""GDT_ENTRY_TLS_MIN of Linux on i386."""


class UnicornUserI386(MachineUserEngine[UnicornX86]):
    """Implements `iovirt_dist.guest.program.engine.UserEngine`; calls have EAX, and EBX, ECX, EDX, ESI, EDI, EBP.

    Args:
        ram_bytes: Physical memory, a multiple of 4 KiB.

    Raises:
        LocalError: The installed Unicorn cannot be used.
    """

    def __init__(self, ram_bytes: int) -> None:
        cpu = UnicornX86(no_devices(GENERAL_PROTECTION))
        super().__init__(cpu, UserMemoryMap(0, ram_bytes, PAE, I386.user_end), _CALL)
        self._gdt_frame = 0

    def _enter_address_space(self, space: AddressSpace) -> None:
        cpu = self._cpu
        table = [0] * 14 + [_CODE_DESCRIPTOR, _DATA_DESCRIPTOR]
        self._gdt_frame = space.map_system(_GDT, b"".join(entry.to_bytes(8, "little") for entry in table))
        cpu.write_register("cr4", CR4)
        cpu.write_register("cr3", space.root)
        cpu.uc.reg_write(UC_X86_REG_MSR, (MSR_EFER, EFER_NXE))
        cpu.write_register("cr0", CR0)
        cpu.uc.reg_write(UC_X86_REG_FPCW, 0x37F)
        cpu.uc.reg_write(UC_X86_REG_FPTAG, 0xFFFF)

    def _set_registers(self, pc: int, stack_pointer: int) -> None:
        self._cpu.commit(user_state(self._cpu.capture(), pc, stack_pointer, _CODE, _DATA, _GDT))

    def _outcome(self, stop: Stop) -> UserStop:
        if stop.software and stop.vector == SYSTEM_CALL_VECTOR:
            return UserStop(UserStopKind.SYSTEM_CALL)
        return fault_of(stop)

    def finish_call(self, result: int) -> None:
        """Set EAX; INT 80h changes nothing else."""
        self._cpu.write_register("eax", result & 0xFFFF_FFFF)

    def set_thread_pointer(self, value: int) -> None:
        """Make descriptor 6 a flat data segment with this base; the program loads it when it has the number."""
        base = value & 0xFFFF_FFFF
        descriptor = _DATA_DESCRIPTOR | (base & 0xFF_FFFF) << 16 | base >> 24 << 56
        self._cpu.write_memory(self._gdt_frame + 8 * _TLS_ENTRY, descriptor.to_bytes(8, "little"))
