"""What every virtual device is, and what it gets through its constructor.

A virtual device is a pure register machine: reads and writes of registers change its state, may set an interrupt
line and may hand requests to its backend. It knows no clock (time is an argument), no guest and no socket. The
guest is untrusted: any offset inside the device's range, any width, any value and any order must be answered
without an exception; what a specification leaves open reads as 0 or all ones and is ignored on write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from iovirt_dist.drivers.backend import DiskClient, TerminalClient

IrqLine: TypeAlias = Callable[[bool], None]
"""Output of a device: set its interrupt line to a level. Setting the level it has already is harmless."""

State: TypeAlias = dict[str, Any]
"""A device's whole state in types that msgpack can carry (int, bool, bytes, str, None, list, dict)."""


@runtime_checkable
class Device(Protocol):
    """A register machine behind a range of ports or addresses.

    Attributes:
        max_width: Widest access in bytes that the device takes as one; the address map splits wider ones into
            little-endian pieces, as the ISA bus does.
    """

    max_width: int

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register.

        Args:
            offset: Bytes from the start of the device's range.
            width: 1, 2, 4 or 8, at most `max_width`.
            now_ns: Virtual time of the guest's machine, ns since its power-on.

        Returns:
            The value, 0 <= value < 2**(8*width).
        """
        ...

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register; arguments as in `read`."""
        ...

    def deadline_ns(self) -> int | None:
        """When `advance` must be called next; None while nothing is timed."""
        ...

    def advance(self, now_ns: int) -> None:
        """Let time pass: do everything that is due at `now_ns` or before."""
        ...

    def state(self) -> State:
        """Return the whole state; `restore` of it on a fresh device gives the same behaviour."""
        ...

    def restore(self, state: State) -> None:
        """Take over a state that `state` returned, and set output lines accordingly."""
        ...


@runtime_checkable
class StringDevice(Device, Protocol):
    """A device with a data port that takes string I/O (`rep ins`, `rep outs`) whole."""

    def read_string(self, offset: int, width: int, count: int, now_ns: int) -> bytes:
        """Read a register `count` times; returns ``width * count`` bytes, as the same single reads would."""
        ...

    def write_string(self, offset: int, width: int, data: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Write a register ``len(data) // width`` times."""
        ...


@runtime_checkable
class PrefetchDevice(StringDevice, Protocol):
    """A device whose data port may be read ahead of the guest."""

    def peek(self, offset: int, width: int) -> bytes:
        """Return, without taking it, what the next reads of a register give.

        Only as many whole elements as can be read with no other effect than using them up, whatever else happens
        meanwhile that is no access of the guest; none for a register that is not a data port.
        """
        ...


class Quiet:
    """Base of devices without timers: never due."""

    def deadline_ns(self) -> int | None:
        """Nothing is timed."""
        return None

    def advance(self, now_ns: int) -> None:
        """Nothing is timed."""


class Disk(Device, DiskClient, Protocol):
    """A virtual device in front of a `DiskBackend`."""


class Terminal(Device, TerminalClient, Protocol):
    """A virtual device in front of a `TerminalBackend`."""
