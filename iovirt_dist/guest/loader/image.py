"""What every image format is turned into, and the checks that hold for all of them."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from iovirt_dist.errors import ImageError

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

PC: Final = "pc"
VIRT: Final = "virt"


class ImageFormat(enum.Enum):
    """The image formats, by their topology names."""

    ELF = "elf"
    MULTIBOOT = "multiboot"
    FLAT = "flat"
    ROM = "rom"


class Architecture(enum.Enum):
    """What an ELF file must be made for. The value is how messages call it."""

    I386 = "32-bit x86"
    RISCV64 = "64-bit RISC-V"


@dataclass(frozen=True, slots=True)
class RamRange:
    """A range of guest physical RAM in bytes."""

    address: int
    size: int

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that an image is loaded into.

    Attributes:
        machine: Topology name, ``pc`` or ``virt``.
        architecture: What ELF files must be made for.
        ram: Where segments may lie.
        flat_address: Where a flat image goes unless told otherwise.
    """

    machine: str
    architecture: Architecture
    ram: tuple[RamRange, ...]
    flat_address: int


def pc_target(memory_bytes: int) -> Target:
    """Return the `pc` machine: conventional memory, then RAM from 1 MiB up; the hole between them is not RAM.

    Flat images go to 7C00h, where a BIOS puts a boot sector.
    """
    low = RamRange(0, min(memory_bytes, 640 * KIB))
    high = RamRange(MIB, max(0, memory_bytes - MIB))
    return Target(PC, Architecture.I386, (low, high), 0x7C00)


def virt_target(memory_bytes: int) -> Target:
    """Return the `virt` machine: RAM from 80000000h."""
    return Target(VIRT, Architecture.RISCV64, (RamRange(0x8000_0000, memory_bytes),), 0x8000_0000)


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes at a guest physical address, followed by zeros.

    Attributes:
        address: Guest physical address of the first byte.
        data: File content.
        zero_fill: Zero bytes that follow (.bss).
    """

    address: int
    data: bytes
    zero_fill: int = 0

    @property
    def end(self) -> int:
        """First address behind data and zeros."""
        return self.address + len(self.data) + self.zero_fill


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A checked image, ready to be written into a machine.

    Attributes:
        kind: The format it came in.
        segments: What to write, in ascending addresses, without overlap.
        entry: Where the CPU starts. For ROM the x86 reset vector, FFFFFFF0h.
        registers: Register values at entry that the format promises, by lower-case name.
        command_line_address: Where the zero-terminated command line lies; None if the format has none.
    """

    kind: ImageFormat
    segments: tuple[Segment, ...]
    entry: int
    registers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    command_line_address: int | None = None

    @property
    def end(self) -> int:
        """First address behind the highest segment."""
        return max(segment.end for segment in self.segments)


def check_segments(segments: Iterable[Segment], target: Target, where: str) -> tuple[Segment, ...]:
    """Sort segments and check that they lie in RAM and apart.

    Args:
        segments: At least one segment, in any order; empty ones are dropped.
        target: Whose RAM.
        where: The file, for messages.

    Returns:
        The segments in ascending order.

    Raises:
        ImageError: None is left, one lies outside RAM, or two overlap.
    """
    ordered = tuple(sorted((s for s in segments if s.end > s.address), key=lambda s: s.address))
    if not ordered:
        raise ImageError("nothing to load: no segment has content", where, "build it with a loadable segment")
    for segment in ordered:
        if not any(ram.address <= segment.address and segment.end <= ram.end for ram in target.ram):
            raise ImageError(
                f"segment {segment.address:#x}-{segment.end:#x} is outside the RAM of a {target.machine} machine "
                f"({_ram_text(target)})",
                where,
                "give the guest more memory, or link the image to other addresses",
            )
    for lower, upper in itertools.pairwise(ordered):
        if lower.end > upper.address:
            raise ImageError(
                f"segments {lower.address:#x}-{lower.end:#x} and {upper.address:#x}-{upper.end:#x} overlap",
                where,
                "link the image so that its segments lie apart",
            )
    return ordered


def _ram_text(target: Target) -> str:
    return ", ".join(f"{ram.address:#x}-{ram.end:#x}" for ram in target.ram if ram.size)
