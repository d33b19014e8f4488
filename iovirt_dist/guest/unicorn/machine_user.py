"""A machine's CPU engine as a CPU in user mode: what does not depend on the architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from iovirt_dist.guest.engine import Stop, StopKind
from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.guest.program.engine import UserStop, UserStopKind
from iovirt_dist.guest.program.tables import TableFormat
from iovirt_dist.guest.unicorn.registers import RegisterBatch
from iovirt_dist.guest.unicorn.user import flush_tlb
from iovirt_dist.virtio.memory import GuestMemory

if TYPE_CHECKING:  # a program of one architecture needs no engine of the other
    from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
    from iovirt_dist.guest.unicorn.x86 import UnicornX86


Cpu = TypeVar("Cpu", bound="UnicornX86 | UnicornRiscv")


class UserMemoryMap(NamedTuple):
    """Where a program's memory is.

    Attributes:
        ram_base: First physical address.
        ram_bytes: Physical memory, a multiple of 4 KiB.
        layout: How page tables are written.
        user_end: First virtual address behind what a program may use.
    """

    ram_base: int
    ram_bytes: int
    layout: TableFormat
    user_end: int


class MachineUserEngine(ABC, Generic[Cpu]):
    """The part of `iovirt_dist.guest.program.engine.UserEngine` that is the same on all machines.

    Args:
        cpu: The machine's engine, without memory.
        memory_map: Where memory is to be.
        call_registers: Of a system call: number, then arguments.
    """

    def __init__(self, cpu: Cpu, memory_map: UserMemoryMap, call_registers: Sequence[int]) -> None:
        self._cpu = cpu
        self._map = memory_map
        cpu.map_ram(memory_map.ram_base, memory_map.ram_bytes)
        self._call = RegisterBatch(cpu.uc, call_registers)
        self._pc = 0

    @property
    def memory(self) -> GuestMemory:
        """Physical RAM."""
        return self._cpu.memory

    def reset(self) -> AddressSpace:
        """Forget everything, and return the empty address space of the next program."""
        cpu, (base, size, layout, user_end) = self._cpu, self._map
        cpu.clear_ram()
        cpu.power_on()
        space = AddressSpace(cpu, base, size, layout, user_end, lambda: flush_tlb(cpu.uc))
        self._enter_address_space(space)
        return space

    def start(self, pc: int, stack_pointer: int) -> None:
        """Set all registers for a program's first instruction; its address space must be filled."""
        self._set_registers(pc, stack_pointer)
        flush_tlb(self._cpu.uc)
        self._pc = pc

    def run(self) -> UserStop:
        """Execute until something must be done."""
        stop = self._cpu.run(self._pc)
        self._pc = stop.pc
        return UserStop(UserStopKind.KICKED) if stop.kind is StopKind.KICKED else self._outcome(stop)

    def call(self) -> tuple[int, tuple[int, ...]]:
        """After SYSTEM_CALL: the number's lower half, which is what Linux takes of it, and the arguments."""
        number, *arguments = self._call.read()
        return number & 0xFFFF_FFFF, tuple(arguments)

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._cpu.kick()

    @abstractmethod
    def _enter_address_space(self, space: AddressSpace) -> None:
        """Switch translation on, after a reset."""

    @abstractmethod
    def _set_registers(self, pc: int, stack_pointer: int) -> None:
        """Set all registers, and user mode."""

    @abstractmethod
    def _outcome(self, stop: Stop) -> UserStop:
        """Return what an exception means: a system call, whose successor is `_pc` then, or a fault."""
