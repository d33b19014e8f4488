"""Register blocks of chips that answer at several places.

A chip such as the pair of 8259s answers at three separate port ranges. It offers one `PortBlock` for each; the
blocks share the chip, and exactly one of them, the first, carries the chip's timers and state. A machine builder
adds every block to its address map and needs to know nothing else::

    map.add(PORT, 0x20, 2, pic.master_ports)   # state() of the whole pair
    map.add(PORT, 0xA0, 2, pic.slave_ports)    # state() is empty
    map.add(PORT, 0x4D0, 2, pic.elcr_ports)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from iovirt_dist.hypervisor.vdev.device import State


class Chip(Protocol):
    """The side of a chip that its state-carrying block forwards to; as in `Device`."""

    def deadline_ns(self) -> int | None:
        """When `advance` must be called next."""
        ...

    def advance(self, now_ns: int) -> None:
        """Let time pass."""
        ...

    def state(self) -> State:
        """State of the whole chip."""
        ...

    def restore(self, state: State) -> None:
        """Take over a state and set the output lines."""
        ...


class PortBlock:
    """A block of byte-wide ports, forwarded to two methods of a chip.

    Args:
        read: ``(offset, now_ns) -> byte``.
        write: ``(offset, value, now_ns)``; the value is masked to a byte before.
        owner: The chip whose timers and state this block carries; None when another block does.
    """

    max_width = 1

    def __init__(
        self, read: Callable[[int, int], int], write: Callable[[int, int, int], None], owner: Chip | None = None
    ) -> None:
        self._read = read
        self._write = write
        self._owner = owner

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a byte-wide register."""
        return self._read(offset, now_ns)

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a byte-wide register."""
        self._write(offset, value & 0xFF, now_ns)

    def deadline_ns(self) -> int | None:
        """The chip's deadline, on the block that carries its state."""
        return self._owner.deadline_ns() if self._owner else None

    def advance(self, now_ns: int) -> None:
        """Let the chip's time pass, on the block that carries its state."""
        if self._owner:
            self._owner.advance(now_ns)

    def state(self) -> State:
        """The chip's state on the block that carries it, otherwise nothing."""
        return self._owner.state() if self._owner else {}

    def restore(self, state: State) -> None:
        """Take over what `state` returned."""
        if self._owner:
            self._owner.restore(state)
