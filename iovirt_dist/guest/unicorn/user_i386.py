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

from iovirt_dist.guest.engine import StopKind
from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.guest.program.architecture import I386
from iovirt_dist.guest.program.engine import UserStop, UserStopKind
from iovirt_dist.guest.program.tables import PAE
from iovirt_dist.guest.unicorn.registers import RegisterBatch
from iovirt_dist.guest.unicorn.user import flush_tlb, no_devices
from iovirt_dist.guest.unicorn.user_x86 import CR0, CR4, EFER_NXE, MSR_EFER, fault_of, user_state
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.faults import GENERAL_PROTECTION
from iovirt_dist.guest.x86.state import Segment
from iovirt_dist.virtio.memory import GuestMemory

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


class UnicornUserI386:
    """Implements `iovirt_dist.guest.program.engine.UserEngine`.

    Args:
        ram_bytes: Physical memory, a multiple of 4 KiB.

    Raises:
        LocalError: The installed Unicorn cannot be used.
    """

    def __init__(self, ram_bytes: int) -> None:
        self._cpu = UnicornX86(no_devices(GENERAL_PROTECTION))
        self._ram_bytes = ram_bytes
        self._cpu.map_ram(0, ram_bytes)
        self._call = RegisterBatch(self._cpu.uc, _CALL)
        self._gdt_frame = 0
        self._pc = 0

    @property
    def memory(self) -> GuestMemory:
        """Physical RAM."""
        return self._cpu.memory

    def reset(self) -> AddressSpace:
        """Forget everything, and return the empty address space of the next program."""
        cpu = self._cpu
        cpu.clear_ram()
        cpu.power_on()
        space = AddressSpace(cpu, 0, self._ram_bytes, PAE, I386.user_end, lambda: flush_tlb(cpu.uc))
        table = [0] * 14 + [_CODE_DESCRIPTOR, _DATA_DESCRIPTOR]
        self._gdt_frame = space.map_system(_GDT, b"".join(entry.to_bytes(8, "little") for entry in table))
        cpu.write_register("cr4", CR4)
        cpu.write_register("cr3", space.root)
        cpu.uc.reg_write(UC_X86_REG_MSR, (MSR_EFER, EFER_NXE))
        cpu.write_register("cr0", CR0)
        cpu.uc.reg_write(UC_X86_REG_FPCW, 0x37F)
        cpu.uc.reg_write(UC_X86_REG_FPTAG, 0xFFFF)
        return space

    def start(self, pc: int, stack_pointer: int) -> None:
        """Set all registers for a program's first instruction; its address space must be filled."""
        self._cpu.commit(user_state(self._cpu.capture(), pc, stack_pointer, _CODE, _DATA, _GDT))
        flush_tlb(self._cpu.uc)
        self._pc = pc

    def run(self) -> UserStop:
        """Execute until something must be done."""
        stop = self._cpu.run(self._pc)
        self._pc = stop.pc
        if stop.kind is StopKind.KICKED:
            return UserStop(UserStopKind.KICKED)
        if stop.software and stop.vector == SYSTEM_CALL_VECTOR:
            return UserStop(UserStopKind.SYSTEM_CALL)
        return fault_of(stop)

    def call(self) -> tuple[int, tuple[int, ...]]:
        """After SYSTEM_CALL: EAX, and EBX, ECX, EDX, ESI, EDI, EBP."""
        number, *arguments = self._call.read()
        return number, tuple(arguments)

    def finish_call(self, result: int) -> None:
        """Set EAX; INT 80h changes nothing else."""
        self._cpu.write_register("eax", result & 0xFFFF_FFFF)

    def set_thread_pointer(self, value: int) -> None:
        """Make descriptor 6 a flat data segment with this base; the program loads it when it has the number."""
        base = value & 0xFFFF_FFFF
        descriptor = _DATA_DESCRIPTOR | (base & 0xFF_FFFF) << 16 | base >> 24 << 56
        self._cpu.write_memory(self._gdt_frame + 8 * _TLS_ENTRY, descriptor.to_bytes(8, "little"))

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._cpu.kick()
