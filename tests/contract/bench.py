"""The test bench of virtual devices: their outputs on record, their register blocks, and what the outside does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from iovirt_dist.hypervisor.vdev.device import Device, IrqLine, Quiet, State


@dataclass
class Lines:
    """Records what a device does with its outputs: the level of every line, and how often each one rose."""

    levels: dict[str, bool] = field(default_factory=dict)
    rises: dict[str, int] = field(default_factory=dict)

    def line(self, name: str) -> IrqLine:
        """Return an output line that records under this name."""
        self.levels[name] = False
        self.rises[name] = 0

        def set_level(level: bool) -> None:
            self.rises[name] += level and not self.levels[name]
            self.levels[name] = level

        return set_level

    def strobe(self, name: str) -> Callable[[], None]:
        """Return an output without a level (a reset pulse), counted under `rises`."""
        self.rises[name] = 0

        def pulse() -> None:
            self.rises[name] += 1

        return pulse


Stimulus: TypeAlias = Callable[[int, int], object]
"""Something the outside does to the device, such as an input line or a received byte: ``(value, now_ns)``, where the
value is any 0..2**32-1. What it returns is compared between a device and its restored twin."""


class Block(NamedTuple):
    """A register block: a device and how many ports or bytes of address space it occupies."""

    device: Device
    size: int


class Rig(NamedTuple):
    """A chip on the test bench: its register blocks and what the outside can do to it."""

    blocks: tuple[Block, ...]
    stimuli: tuple[Stimulus, ...] = ()

    def state(self) -> list[State]:
        """State of every block."""
        return [block.device.state() for block in self.blocks]

    def restore(self, states: list[State]) -> None:
        """Give every block its state."""
        for block, state in zip(self.blocks, states, strict=True):
            block.device.restore(state)

    def deadline_ns(self) -> int | None:
        """The earliest deadline of all blocks."""
        deadlines = [block.device.deadline_ns() for block in self.blocks]
        return min((ns for ns in deadlines if ns is not None), default=None)

    def advance(self, now_ns: int) -> None:
        """Let time pass for every block."""
        for block in self.blocks:
            block.device.advance(now_ns)

    def registers(self) -> Iterator[tuple[Device, int, int]]:
        """Every (device, offset, width) worth an access; large blocks are sampled."""
        for device, size in self.blocks:
            for width in (1, 2, 4, 8):
                if width <= device.max_width:
                    yield from ((device, offset, width) for offset in sample_offsets(size))


def sample_offsets(size: int) -> list[int]:
    """All offsets of a small block; of a large one the first 256, a spread of 61 over it, and the last eight."""
    if size <= 512:
        return list(range(size))
    return sorted({*range(256), *range(0, size, max(1, size // 61)), *range(size - 8, size)})


class TerminalBench(Quiet):
    """A terminal backend whose space is a register, so that its state is saved with the UART's."""

    max_width = 1

    def __init__(self) -> None:
        self.free = 200

    def transmit(self, data: bytes) -> None:
        """Take bytes."""
        self.free -= len(data)

    def space(self) -> int:
        """Bytes that are free."""
        return self.free

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """The space."""
        return self.free

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Set the space to 0..31, so that it runs out."""
        self.free = value & 31

    def state(self) -> State:
        """The space."""
        return {"free": self.free}

    def restore(self, state: State) -> None:
        """Take it over."""
        self.free = state["free"]
