"""What a virtual CPU of any architecture looks like to the thread that runs it."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from iovirt_dist.virtio.memory import GuestMemory


class ExitReason(enum.Enum):
    """Why `VirtualCpu.run` returned."""

    KICKED = "kicked"
    """Somebody called `kick`: look at the interrupt lines and at whether to stop, then run again."""
    HALTED = "halted"
    """HLT or WFI with no interrupt pending: wait for a line, then run again."""
    STOPPED = "stopped"
    """The CPU will not run again (triple fault, shutdown); `detail` says why."""


class Exit(NamedTuple):
    """Outcome of one `run`."""

    reason: ExitReason
    detail: str = ""


class CpuCounters(NamedTuple):
    """What a vCPU counts of itself.

    Attributes:
        interrupts: External interrupts taken.
        faults: Exceptions delivered because the bus refused an I/O instruction.
        exceptions: All architectural exceptions and software interrupts delivered to the guest.
    """

    interrupts: int
    faults: int
    exceptions: int


class VirtualCpu(Protocol):
    """One virtual CPU with its memory, attached to a `Bus`.

    `run` and `reset` belong to one thread; `kick` may be called from any thread at any time.
    """

    def run(self) -> Exit:
        """Deliver what is pending, execute guest code, and return on HLT, `kick` or the end of the CPU.

        A `kick` that came while `run` was not active makes the next `run` return at once with KICKED.

        Raises:
            BusClosedError: The bus closed inside a trap; the CPU must not be run again.
        """
        ...

    def kick(self) -> None:
        """Make `run` return soon, at an instruction boundary. Called when an interrupt line rises."""
        ...

    def reset(self) -> None:
        """Power-on reset: registers as after RESET, RAM cleared, images loaded again."""
        ...

    @property
    def memory(self) -> GuestMemory:
        """RAM as devices see it, for DMA: by the thread of `run`, between two runs or inside of a trap."""
        ...

    def read_memory(self, address: int, length: int) -> bytes:
        """Read guest physical RAM (not from inside `run` of another thread).

        Raises:
            LocalError: The range is not RAM.
        """
        ...

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write guest physical RAM; errors as in `read_memory`."""
        ...

    def counters(self) -> CpuCounters:
        """Counts since power-on."""
        ...
