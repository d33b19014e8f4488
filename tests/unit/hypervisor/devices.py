"""Devices that do nothing but say what was done with them."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.device import Quiet, State


class Memory(Quiet):
    """Registers that hold what was written, with a log of accesses.

    Args:
        size: Bytes.
        max_width: Widest access.

    Attributes:
        content: The registers; register n holds n at first.
        accesses: (``r`` or ``w``, offset, width) in order.
    """

    def __init__(self, size: int, max_width: int = 4) -> None:
        self.max_width = max_width
        self.content = bytearray(range(max(size, 0) & 0xFF))
        self.accesses: list[tuple[str, int, int]] = []

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register."""
        self.accesses.append(("r", offset, width))
        return int.from_bytes(self.content[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register."""
        self.accesses.append(("w", offset, width))
        self.content[offset : offset + width] = value.to_bytes(width, "little")

    def state(self) -> State:
        """The registers."""
        return {"content": bytes(self.content)}

    def restore(self, state: State) -> None:
        """Take them over."""
        self.content[:] = state["content"]


class Strings(Memory):
    """The same with a data port at offset 0 that takes strings whole."""

    def read_string(self, offset: int, width: int, count: int, now_ns: int) -> bytes:
        """Count up."""
        self.accesses.append(("rs", offset, width * count))
        return bytes(n & 0xFF for n in range(width * count))

    def write_string(self, offset: int, width: int, data: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Keep nothing."""
        self.accesses.append(("ws", offset, len(data)))
