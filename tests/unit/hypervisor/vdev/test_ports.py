"""Register blocks that share a chip."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.device import Device, State
from iovirt_dist.hypervisor.vdev.ports import PortBlock


class Chip:
    """A chip that remembers what was done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def read(self, offset: int, now_ns: int) -> int:
        """Read a register."""
        return offset + now_ns

    def write(self, offset: int, value: int, now_ns: int) -> None:
        """Write a register."""
        self.done.append((offset, value, now_ns))

    def deadline_ns(self) -> int | None:
        """A fixed deadline."""
        return 77

    def advance(self, now_ns: int) -> None:
        """Remember the time."""
        self.done.append(now_ns)

    def state(self) -> State:
        """A fixed state."""
        return {"chip": 1}

    def restore(self, state: State) -> None:
        """Remember the state."""
        self.done.append(state)


def test_port_block_forwards_bytes() -> None:
    """Offsets and time reach the chip; values are cut to a byte."""
    chip = Chip()
    block = PortBlock(chip.read, chip.write)

    block.write(1, 1, 0x1FF, 5)

    assert isinstance(block, Device)
    assert (block.read(1, 1, 5), chip.done) == (6, [(1, 0xFF, 5)])


def test_port_block_of_the_owner_carries_timers_and_state() -> None:
    """The block that owns the chip speaks for it."""
    chip = Chip()
    block = PortBlock(chip.read, chip.write, owner=chip)

    block.advance(9)
    block.restore({"chip": 2})

    assert (block.deadline_ns(), block.state()) == (77, {"chip": 1})
    assert chip.done == [9, {"chip": 2}]


def test_port_block_without_the_chip_is_silent() -> None:
    """Another block carries the state: this one has none and is never due."""
    chip = Chip()
    block = PortBlock(chip.read, chip.write)

    block.advance(9)
    block.restore({"chip": 2})

    assert (block.deadline_ns(), block.state(), chip.done) == (None, {}, [])
