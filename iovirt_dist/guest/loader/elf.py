"""ELF images (System V ABI, chapters 4 and 5: file header and program headers).

Only the file header and the program headers are used, so stripped files load as well. Segments go to their
*physical* addresses; an entry point given as a virtual address is translated with the segment it lies in.
"""

from __future__ import annotations

import io
from typing import Final, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader.image import Architecture, ImageFormat, LoadedImage, Segment, Target, check_segments

ELF_MAGIC: Final = b"\x7fELF"

_MACHINES: Final = {
    Architecture.I386: ("EM_386", 32),
    Architecture.RISCV64: ("EM_RISCV", 64),
}
_EXECUTABLE_TYPES: Final = frozenset({"ET_EXEC", "ET_DYN"})


class ElfImage(NamedTuple):
    """Loadable content of an ELF file, before the checks against a machine.

    Attributes:
        segments: PT_LOAD segments at physical addresses.
        entry: Physical address of the entry point.
    """

    segments: tuple[Segment, ...]
    entry: int


class _ProgramHeader(NamedTuple):
    offset: int
    virtual: int
    physical: int
    file_bytes: int
    memory_bytes: int


def load_elf(data: bytes, where: str, target: Target) -> LoadedImage:
    """Load an ELF executable.

    Args:
        data: The whole file.
        where: Its name, for messages.
        target: The machine; decides class and architecture.

    Raises:
        ImageError: Not ELF, truncated, of another class or architecture, dynamically linked, outside RAM, or with an
            entry point outside its segments.
    """
    image = read_elf(data, where, target.architecture)
    segments = check_segments(image.segments, target, where)
    check_entry(image.entry, segments, where)
    return LoadedImage(ImageFormat.ELF, segments, image.entry)


def read_elf(data: bytes, where: str, architecture: Architecture) -> ElfImage:
    """Read segments and entry point; errors as in `load_elf`, except those about RAM."""
    if not data.startswith(ELF_MAGIC):
        raise ImageError("not an ELF file", where, 'set "format" to what it is, or leave it at "auto"')
    try:
        elf = ELFFile(io.BytesIO(data))
        _check_header(elf, where, architecture)
        headers = _program_headers(elf, where)
        entry = int(elf.header["e_entry"])
    except (ELFError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise ImageError("ELF file is truncated or damaged", where, "copy or build it again") from error
    segments = tuple(_segment(header, data, where) for header in headers)
    return ElfImage(segments, _physical(entry, headers))


def check_entry(entry: int, segments: tuple[Segment, ...], where: str) -> None:
    """Raise `ImageError` unless the entry point lies in a segment."""
    if not any(segment.address <= entry < segment.end for segment in segments):
        raise ImageError(f"entry point {entry:#x} lies in no segment", where, "link the image with an entry symbol")


def _check_header(elf: ELFFile, where: str, architecture: Architecture) -> None:
    machine, bits = _MACHINES[architecture]
    header = elf.header
    if header["e_machine"] != machine or elf.elfclass != bits or not elf.little_endian:
        order = "little" if elf.little_endian else "big"
        raise ImageError(
            f"made for {elf.elfclass}-bit {order}-endian {header['e_machine']}, not for {architecture.value}",
            where,
            f"use an image for {architecture.value}",
        )
    if header["e_type"] not in _EXECUTABLE_TYPES:
        raise ImageError(f"ELF type {header['e_type']} is not executable", where, "link it to an executable")


def _program_headers(elf: ELFFile, where: str) -> list[_ProgramHeader]:
    """Read PT_LOAD headers without building pyelftools' segment objects, which parse far more than is needed."""
    layout = elf.structs.Elf_Phdr
    found = []
    for index in range(int(elf.header["e_phnum"])):
        raw = struct_parse(layout, elf.stream, int(elf.header["e_phoff"]) + index * int(elf.header["e_phentsize"]))
        if raw["p_type"] == "PT_INTERP":
            raise ImageError("dynamically linked: it needs another program to start", where, "link it statically")
        if raw["p_type"] == "PT_LOAD":
            fields = (raw[key] for key in ("p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz"))
            found.append(_ProgramHeader(*(int(value) for value in fields)))
    return found


def _segment(header: _ProgramHeader, data: bytes, where: str) -> Segment:
    end = header.offset + header.file_bytes
    if end > len(data):
        raise ImageError(
            f"truncated: a segment ends at byte {end} of {len(data)}", where, "copy or build the image again"
        )
    if header.memory_bytes < header.file_bytes:
        raise ImageError("ELF segment is smaller in memory than in the file", where, "build the image again")
    return Segment(header.physical, data[header.offset : end], header.memory_bytes - header.file_bytes)


def _physical(entry: int, headers: list[_ProgramHeader]) -> int:
    for header in headers:
        if header.virtual <= entry < header.virtual + header.memory_bytes:
            return entry - header.virtual + header.physical
    return entry
