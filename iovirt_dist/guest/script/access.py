"""What drivers need of the guest that they run in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from iovirt_dist.guest.script.tasks import Event, Task
from iovirt_dist.virtio.memory import ByteMemory

T = TypeVar("T")


class InterruptController(Protocol):
    """The guest's interrupt controller; see `guest.script.interrupts.Interrupts`."""

    def connect(self, source: int, handler: Callable[[], Awaitable[None]]) -> None:
        """Have a source served whenever it interrupts."""
        ...


class GuestAccess(Protocol):
    """Memory, registers, interrupt lines and tasks of a script's guest; see `guest.script.guest.ScriptGuest`."""

    name: str
    memory: ByteMemory
    lines: int
    lines_changed: Event
    dma: Event
    interrupts_taken: int

    @property
    def interrupts(self) -> InterruptController:
        """The interrupt controller."""
        ...

    async def load(self, address: int, width: int = 4) -> int:
        """Load from a device register."""
        ...

    def store(self, address: int, width: int, value: int) -> None:
        """Store to a device register."""
        ...

    async def interrupt(self, line: int = ...) -> None:
        """Wait until an interrupt input is asserted."""
        ...

    def allocate(self, size_bytes: int, align: int = 16) -> int:
        """Take memory."""
        ...

    def spawn(self, coroutine: Coroutine[Any, None, T]) -> Task[T]:
        """Let another coroutine run."""
        ...

    def event(self) -> Event:
        """Return a new event."""
        ...
