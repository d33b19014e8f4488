"""Static ELF programs (System V ABI, chapters 4 and 5), position-dependent or not, at their virtual addresses."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader.path import read_image
from iovirt_dist.guest.program.architecture import BY_ELF_MACHINE, Architecture
from iovirt_dist.guest.program.tables import EXECUTE, PAGE_BYTES, READ, WRITE

_ELF_MAGIC: Final = b"\x7fELF"
_MOST_HEADERS: Final = 128
MOST_BYTES: Final = 256 << 20
"""Largest sum of a program's segments in memory."""
_DAMAGED: Final = (ELFError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError)


class ProgramSegment(NamedTuple):
    """One PT_LOAD segment.

    Attributes:
        address: Virtual address of the first byte.
        data: File content.
        memory_bytes: Size in memory; zeros follow the content.
        protection: READ, WRITE and EXECUTE bits.
    """

    address: int
    data: bytes
    memory_bytes: int
    protection: int

    @property
    def pages(self) -> range:
        """Numbers of the pages that it touches."""
        return range(self.address // PAGE_BYTES, -(-(self.address + self.memory_bytes) // PAGE_BYTES))


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """A program, ready to be loaded; addresses as they will be.

    Attributes:
        architecture: What it is made for.
        segments: In file order.
        entry: Its first instruction.
        headers: Address of the program headers (AT_PHDR), 0 if no segment holds them.
        header_count: How many (AT_PHNUM).
        header_bytes: Size of one (AT_PHENT).
    """

    architecture: Architecture
    segments: tuple[ProgramSegment, ...]
    entry: int
    headers: int
    header_count: int
    header_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Memory of all segments, in whole pages."""
        return sum(len(segment.pages) for segment in self.segments) * PAGE_BYTES

    @property
    def break_start(self) -> int:
        """Where the heap begins: the first page behind the segments."""
        return max(segment.pages.stop for segment in self.segments) * PAGE_BYTES


def load_program(path: Path, abi: str = "auto") -> ProgramImage:
    """Read a program file.

    Args:
        path: The file.
        abi: Name of the ABI that it must be for; ``auto`` for any.

    Raises:
        ImageError: It is missing, unreadable, or not a static program for a known architecture.
    """
    return parse_program(read_image(path), str(path), abi)


def parse_program(data: bytes, where: str, abi: str = "auto") -> ProgramImage:
    """Read a program that is in memory; arguments and errors as in `load_program`."""
    if not data.startswith(_ELF_MAGIC):
        raise ImageError("not an ELF file", where, "name a static ELF program")
    try:
        elf = ELFFile(io.BytesIO(data))
        architecture = _architecture(elf, where, abi)
        headers = _program_headers(elf, where)
        entry, table = int(elf.header["e_entry"]), int(elf.header["e_phoff"])
        header_bytes = int(elf.header["e_phentsize"])
        dynamic = elf.header["e_type"] == "ET_DYN"
    except _DAMAGED as error:
        raise ImageError("ELF file is truncated or damaged", where, "copy or build it again") from error
    base = architecture.position_independent_base if dynamic else 0
    segments = tuple(_segment(header, base, data, where) for header in headers if header["p_type"] == "PT_LOAD")
    _check(segments, base + entry, architecture, where)
    address = next((s.address - o + table for s, o in _offsets(segments, headers) if o <= table < o + len(s.data)), 0)
    return ProgramImage(architecture, segments, base + entry, address, len(headers), header_bytes)


_Header = dict[str, int | str]


def _architecture(elf: ELFFile, where: str, abi: str) -> Architecture:
    machine, kind = elf.header["e_machine"], elf.header["e_type"]
    architecture = BY_ELF_MACHINE.get((machine, elf.elfclass)) if elf.little_endian else None
    known = ", ".join(a.abi for a in BY_ELF_MACHINE.values())
    if architecture is None:
        order = "little" if elf.little_endian else "big"
        what = f"made for {elf.elfclass}-bit {order}-endian {machine}, which no program guest runs"
        raise ImageError(what, where, f"use a program for one of {known}")
    if abi not in ("auto", architecture.abi):
        raise ImageError(f"a program for {architecture.abi}, not for {abi}", where, 'set abi = "auto" or correct it')
    if kind not in ("ET_EXEC", "ET_DYN"):
        raise ImageError(f"ELF type {kind} is not executable", where, "link it to an executable")
    return architecture


def _program_headers(elf: ELFFile, where: str) -> list[_Header]:
    """Read the program headers without building pyelftools' segment objects, which parse far more than is needed."""
    layout, count = elf.structs.Elf_Phdr, int(elf.header["e_phnum"])
    if count > _MOST_HEADERS:
        raise ImageError(f"{count} program headers, more than {_MOST_HEADERS}", where, "link it again")
    start, size = int(elf.header["e_phoff"]), int(elf.header["e_phentsize"])
    headers = [dict(struct_parse(layout, elf.stream, start + index * size)) for index in range(count)]
    if any(header["p_type"] == "PT_INTERP" for header in headers):
        raise ImageError("dynamically linked: it needs another program to start", where, "link it with -static")
    return headers


def _segment(header: _Header, base: int, data: bytes, where: str) -> ProgramSegment:
    offset, file_bytes, memory_bytes = int(header["p_offset"]), int(header["p_filesz"]), int(header["p_memsz"])
    end = offset + file_bytes
    if end > len(data):
        raise ImageError(f"truncated: a segment ends at byte {end} of {len(data)}", where, "copy or build it again")
    if memory_bytes < file_bytes:
        raise ImageError("ELF segment is smaller in memory than in the file", where, "build the program again")
    flags = int(header["p_flags"])
    protection = (READ if flags & 4 else 0) | (WRITE if flags & 2 else 0) | (EXECUTE if flags & 1 else 0)
    return ProgramSegment(base + int(header["p_vaddr"]), data[offset:end], memory_bytes, protection)


def _offsets(segments: tuple[ProgramSegment, ...], headers: list[_Header]) -> list[tuple[ProgramSegment, int]]:
    offsets = [int(header["p_offset"]) for header in headers if header["p_type"] == "PT_LOAD"]
    return list(zip(segments, offsets, strict=True))


def _check(segments: tuple[ProgramSegment, ...], entry: int, architecture: Architecture, where: str) -> None:
    for segment in segments:
        end = segment.address + segment.memory_bytes
        if segment.address < PAGE_BYTES or end > architecture.map_top:
            what = f"segment {segment.address:#x}-{end:#x} is outside of what {architecture.abi} programs may use"
            raise ImageError(what, where, "link it to usual addresses")
    size = sum(segment.memory_bytes for segment in segments)
    if size > MOST_BYTES:
        raise ImageError(f"needs {size} bytes of memory, more than {MOST_BYTES}", where, "use a smaller program")
    if not any(s.address <= entry < s.address + s.memory_bytes and s.protection & EXECUTE for s in segments):
        raise ImageError(f"entry point {entry:#x} lies in no executable segment", where, "link it with an entry symbol")
