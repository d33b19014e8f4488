"""Interception of INT 80h: a system call of a guest's program, taken before the guest's kernel sees it.

The hypervisor says which calls it takes; others, and all that it passes on, are delivered as ever, and while it takes
none nothing is looked at. A call that is done continues behind the INT, in the same program, at once; interrupts that
came meanwhile are taken there.
"""

from __future__ import annotations

from typing import Final, Protocol

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.abi.table import Abi
from iovirt_dist.guest.bus import Bus
from iovirt_dist.guest.program.marshal import Marshaller, scatter
from iovirt_dist.guest.x86.faults import Fault
from iovirt_dist.guest.x86.paging import PAGE_BYTES, Memory, Mmu
from iovirt_dist.guest.x86.state import EAX, EBP, EBX, ECX, EDI, EDX, ESI, CpuState
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.syscall_messages import Disposition

SYSTEM_CALL_VECTOR: Final = 0x80
_ABI: Final[Abi] = ABIS["linux_i386"]
_ARGUMENTS: Final = (EBX, ECX, EDX, ESI, EDI, EBP)


class Registers(Memory, Protocol):
    """What interception needs of an engine: physical memory, and a register to put the result into."""

    def write_register(self, name: str, value: int) -> None:
        """Write a register."""
        ...


class SystemCalls:
    """Asks the hypervisor about system calls of programs.

    Args:
        engine: The CPU.
        mmu: Translation of the guest's addresses.
        bus: The way to the hypervisor.
    """

    def __init__(self, engine: Registers, mmu: Mmu, bus: Bus) -> None:
        self._engine = engine
        self._mmu = mmu
        self._bus = bus
        self._marshaller = Marshaller(_ABI)

    def take(self, state: CpuState) -> bool:
        """Carry out the call of an INT 80h if the hypervisor takes it.

        Effects and the end of a program are the affair of the guest's kernel: a reply that asks for them is ignored
        in that point, or, for EXIT, passed on to the kernel.

        Args:
            state: The CPU behind the instruction.

        Returns:
            Whether the program goes on there; else the interrupt must be delivered.

        Raises:
            BusClosedError: The process is stopping, or power changed.
        """
        taken = self._bus.intercepted_calls()
        if taken is None or taken[0] != _ABI.name or state.cpl != 3 or state.virtual_8086:
            return False
        number = state.registers[EAX]
        if taken[1] and number not in taken[1]:
            return False
        memory = PagedMemory(self._engine, self._mmu, state)
        gathered = self._marshaller.gather(number, tuple([state.registers[index] for index in _ARGUMENTS]), memory)
        outcome = self._bus.system_call(state.cr3, number, gathered.arguments, gathered.buffers, gathered.data)
        if outcome.disposition is not Disposition.DONE:
            return False
        scatter(gathered, outcome.outputs, outcome.data, memory)
        self._engine.write_register("eax", outcome.result & 0xFFFF_FFFF)
        return True


class PagedMemory:
    """The memory of the program that runs, through the guest's page tables, with the program's rights.

    Only RAM counts: a device in a program's pages is none of a system call. Translations are kept for the time of the
    call, as a TLB may keep them. Implements `iovirt_dist.guest.program.marshal.UserMemory`.

    Args:
        memory: Physical memory.
        mmu: Translation.
        state: Control registers.
    """

    def __init__(self, memory: Memory, mmu: Mmu, state: CpuState) -> None:
        self._memory = memory
        self._mmu = mmu
        self._state = state
        self._readable: dict[int, int] = {}
        self._writable: dict[int, int] = {}

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """How many of `length` bytes from `address` on the program may read or write."""
        end = min(address + length, 1 << 32)
        at = address
        while at < end:
            if self._page(at // PAGE_BYTES, write=write) is None:
                return at - address
            at = (at // PAGE_BYTES + 1) * PAGE_BYTES
        return max(0, end - address)

    def read(self, address: int, length: int) -> bytes:
        """Read a range that is accessible."""
        return b"".join([self._memory.read_memory(*run) for run in self._runs(address, length, write=False)])

    def write(self, address: int, data: Buffer) -> None:
        """Write what the program may write; the rest from the first byte on that it may not is dropped."""
        view = memoryview(data)
        for physical, length in self._runs(address, len(view), write=True):
            self._memory.write_memory(physical, view[:length])
            view = view[length:]

    def _page(self, page: int, *, write: bool) -> int | None:
        """Physical address of a page, or None if the program may not access it so, or it is not RAM."""
        known = self._writable if write else self._readable
        found = known.get(page)
        if found is None:
            try:
                found = self._mmu.translate(self._state, page * PAGE_BYTES, write=write, user=True)
            except Fault:
                return None
            if not self._memory.is_ram(found, PAGE_BYTES):
                return None
            known[page] = found
        return found

    def _runs(self, address: int, length: int, *, write: bool) -> list[tuple[int, int]]:
        """Physical ranges behind a virtual one, neighbours joined, up to the first page that is not accessible."""
        runs: list[tuple[int, int]] = []
        while length > 0:
            page = self._page(address // PAGE_BYTES, write=write) if address >> 32 == 0 else None
            if page is None:
                break
            offset = address % PAGE_BYTES
            size = min(length, PAGE_BYTES - offset)
            if runs and sum(runs[-1]) == page + offset:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((page + offset, size))
            address += size
            length -= size
        return runs
