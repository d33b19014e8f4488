"""The multiboot information structure (Multiboot Specification 0.6.96, section 3.3): what the kernel finds at EBX."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from iovirt_dist.guest.loader.image import KIB, MIB, Target

BOOT_LOADER_NAME: Final = b"iovirt-dist\0"
PAGE_BYTES: Final = 4 * KIB

HAS_MEMORY: Final = 1 << 0
HAS_COMMAND_LINE: Final = 1 << 2
HAS_MODULES: Final = 1 << 3
HAS_MEMORY_MAP: Final = 1 << 6
HAS_LOADER_NAME: Final = 1 << 9

AVAILABLE: Final = 1
RESERVED: Final = 2

_STRUCTURE_BYTES: Final = 120
_MODULE_BYTES: Final = 16


class Module(NamedTuple):
    """A boot module: its content and the string that goes with it."""

    data: bytes
    string: str = ""


class PlacedModule(NamedTuple):
    """A module with its guest physical address."""

    address: int
    data: bytes
    string: bytes


class Information(NamedTuple):
    """The structure with everything it points to, and where the command line lies."""

    data: bytes
    command_line_address: int


def place_modules(modules: Sequence[Module], base: int) -> list[PlacedModule]:
    """Give modules page-aligned addresses from `base` (page-aligned) upwards."""
    placed = []
    for module in modules:
        placed.append(PlacedModule(base, module.data, _text(module.string)))
        base += -(-len(module.data) // PAGE_BYTES) * PAGE_BYTES
    return placed


def memory_map(target: Target) -> list[tuple[int, int, int]]:
    """Return (address, bytes, type) of RAM and of the BIOS range below 1 MiB."""
    ranges = [(ram.address, ram.size, AVAILABLE) for ram in target.ram if ram.size]
    return sorted([*ranges, (0xF0000, 0x10000, RESERVED)])


def build_information(base: int, target: Target, command_line: str, modules: Sequence[PlacedModule]) -> Information:
    """Build the structure for address `base`: the structure, memory map, module list, then the strings.

    Args:
        base: Guest physical address where the result will be written; 4-byte aligned.
        target: Whose RAM the memory fields describe (mem_lower and mem_upper count KiB from 0 and from 1 MiB).
        command_line: Kernel command line.
        modules: Placed modules.
    """
    entries = b"".join(struct.pack("<IQQI", 20, *entry) for entry in memory_map(target))
    map_at = base + _STRUCTURE_BYTES
    modules_at = map_at + len(entries)
    strings_at = modules_at + _MODULE_BYTES * len(modules)
    line = _text(command_line)
    loader_at = strings_at + len(line)
    text_at = loader_at + len(BOOT_LOADER_NAME)
    records, texts = bytearray(), bytearray()
    for module in modules:
        records += struct.pack("<4I", module.address, module.address + len(module.data), text_at + len(texts), 0)
        texts += module.string
    flags = HAS_MEMORY | HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP | HAS_LOADER_NAME
    structure = bytearray(_STRUCTURE_BYTES)
    struct.pack_into("<4I", structure, 0, flags, *_memory_kib(target), 0)
    struct.pack_into("<3I", structure, 16, strings_at, len(modules), modules_at)
    struct.pack_into("<2I", structure, 44, len(entries), map_at)
    struct.pack_into("<I", structure, 64, loader_at)
    return Information(bytes(structure) + entries + records + line + BOOT_LOADER_NAME + texts, strings_at)


def _memory_kib(target: Target) -> tuple[int, int]:
    lower = sum(ram.size for ram in target.ram if ram.address == 0)
    upper = sum(ram.size for ram in target.ram if ram.address == MIB)
    return lower // KIB, upper // KIB


def _text(string: str) -> bytes:
    return string.encode("latin-1", "replace").replace(b"\0", b"?") + b"\0"
