"""The seam to a CPU emulator: what a machine needs of one, in the emulator's own terms.

`guest.unicorn` is the first engine; a second (another emulator, KVM) implements the same protocol. An engine executes
instructions and reports; exceptions are delivered by the architecture's rules (`guest.x86`, `guest.riscv`), which use
only this protocol and are shared by engines. Who takes interrupts is the architecture's choice: on x86 our rules do, on
RISC-V the engine follows ``mip``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

from iovirt_dist.virtio.memory import GuestMemory


class StopKind(enum.Enum):
    """Why the engine stopped executing."""

    KICKED = "kicked"
    HALTED = "halted"
    """HLT or WFI was executed; the PC is behind it."""
    EXCEPTION = "exception"
    """The instruction raised an architectural exception or software interrupt that must be delivered."""
    REFUSED = "refused"
    """An I/O callback raised `GuestFault`; the PC is at the instruction and nothing of it or after it took effect."""


class Stop(NamedTuple):
    """Why and where execution stopped.

    Attributes:
        kind: The reason.
        pc: Where to continue, or the instruction that raised.
        vector: For EXCEPTION and REFUSED: x86 vector or RISC-V cause.
        error_code: x86 error code, or RISC-V trap value (mtval); 0 if the vector has none.
        software: x86: raised by INT n, INT3 or INTO (`pc` is behind it, DPL is checked at delivery).
        address: Faulting linear or virtual address (CR2) for page faults.
    """

    kind: StopKind
    pc: int
    vector: int = -1
    error_code: int = 0
    software: bool = False
    address: int = 0


class Callbacks(NamedTuple):
    """What the engine calls, in the thread of `run`, from inside an instruction.

    Each may raise `GuestFault` (the instruction must fault: the engine stops with REFUSED, precisely) or
    `BusClosedError` (the engine stops and re-raises it from `run`).

    Attributes:
        port_in: (port, width, count) -> bytes; x86 only.
        port_out: (port, width, data); x86 only.
        load: (physical address, width) -> value, outside RAM and ROM.
        store: (physical address, width, value), outside RAM and ROM.
    """

    port_in: Callable[[int, int, int], bytes]
    port_out: Callable[[int, int, bytes], None]
    load: Callable[[int, int], int]
    store: Callable[[int, int, int], None]


class Engine(Protocol):
    """An emulator of one CPU with physical memory. Register names are the architecture's, in lower case."""

    @property
    def memory(self) -> GuestMemory:
        """RAM as devices see it; for the thread of `run`, between two runs or inside of a callback."""
        ...

    def map_ram(self, address: int, size: int) -> None:
        """Back a page-aligned physical range with zeroed RAM."""
        ...

    def map_rom(self, address: int, data: bytes) -> None:
        """Back a page-aligned physical range with read-only data; guest writes to it are ignored."""
        ...

    def read_memory(self, address: int, length: int) -> bytes:
        """Read physical RAM or ROM; LocalError outside."""
        ...

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write physical RAM or ROM; LocalError outside."""
        ...

    def read_register(self, name: str) -> int:
        """Read a register at any privilege level."""
        ...

    def write_register(self, name: str, value: int) -> None:
        """Write a register at any privilege level; raising the privilege level is allowed."""
        ...

    def run(self, pc: int) -> Stop:
        """Execute from `pc` until something must be done."""
        ...

    def kick(self) -> None:
        """Make `run` return with KICKED soon; from any thread; sticky until the next `run` has returned."""
        ...
