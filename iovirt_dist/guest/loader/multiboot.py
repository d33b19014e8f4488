"""Multiboot images (Multiboot Specification 0.6.96: 3.1 OS image format, 3.2 machine state).

The header lies in the first 8192 bytes, aligned to 4. If flag 16 is set, its address fields say what to load
where (the "a.out kludge"); otherwise the image is ELF. Either way the CPU starts in 32-bit protected mode with
EAX = 2BADB002h and EBX = the address of the information structure (`multiboot_info`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader.elf import ELF_MAGIC, ElfImage, check_entry, read_elf
from iovirt_dist.guest.loader.image import (
    KIB,
    MIB,
    ImageFormat,
    LoadedImage,
    Segment,
    Target,
    check_segments,
)
from iovirt_dist.guest.loader.multiboot_info import Module, build_information, place_modules

HEADER_MAGIC: Final = 0x1BADB002
BOOT_MAGIC: Final = 0x2BADB002
SEARCH_BYTES: Final = 8192

FLAG_ADDRESS_FIELDS: Final = 1 << 16
REQUIRED_MASK: Final = 0xFFFF
SUPPORTED_REQUIRED: Final = 0b011
"""Bit 0: modules on page boundaries; bit 1: memory information. Bit 2 (video mode) cannot be met."""

INFORMATION_BASE: Final = 0x8000
INFORMATION_END: Final = 640 * KIB
PAGE_BYTES: Final = 4 * KIB

__all__ = ["Module", "MultibootHeader", "find_header", "load_multiboot"]


class MultibootHeader(NamedTuple):
    """Where the header lies in the file, its flags, and its five address fields (0 without flag 16)."""

    offset: int
    flags: int
    header_address: int = 0
    load_address: int = 0
    load_end: int = 0
    bss_end: int = 0
    entry: int = 0


def find_header(data: bytes) -> MultibootHeader | None:
    """Return the first valid multiboot header of an image, or None."""
    limit = min(len(data), SEARCH_BYTES)
    for offset in range(0, limit - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic != HEADER_MAGIC or (magic + flags + checksum) & 0xFFFF_FFFF:
            continue
        if not flags & FLAG_ADDRESS_FIELDS:
            return MultibootHeader(offset, flags)
        if offset + 32 <= limit:
            return MultibootHeader(offset, flags, *struct.unpack_from("<5I", data, offset + 12))
    return None


def load_multiboot(
    data: bytes,
    where: str,
    target: Target,
    *,
    command_line: str = "",
    modules: Sequence[Module] = (),
) -> LoadedImage:
    """Load a multiboot image and build its information structure.

    Args:
        data: The whole file.
        where: Its name, for messages.
        target: The machine, `pc`.
        command_line: Kernel command line; characters outside Latin-1 are replaced.
        modules: Boot modules, placed on page boundaries behind the image.

    Returns:
        The image with ``eax`` and ``ebx`` as section 3.2 promises them.

    Raises:
        ImageError: No valid header, a required feature that is not there, or anything `load_elf` refuses.
    """
    header = find_header(data)
    if header is None:
        raise ImageError(
            f"no multiboot header in the first {SEARCH_BYTES} bytes", where, "link the header section first"
        )
    missing = header.flags & REQUIRED_MASK & ~SUPPORTED_REQUIRED
    if missing:
        raise ImageError(f"needs multiboot features {missing:#x}", where, "build it without a video mode request")
    image = _read_image(data, where, target, header)
    kernel = check_segments(image.segments, target, where)
    check_entry(image.entry, kernel, where)
    placed = place_modules(modules, _round_up(max(MIB, kernel[-1].end)))
    low = (segment for segment in kernel if segment.address < INFORMATION_END)
    base = _round_up(max([INFORMATION_BASE, *(segment.end for segment in low)]))
    information = build_information(base, target, command_line, placed)
    if base + len(information.data) > INFORMATION_END:
        raise ImageError("no room for boot information below 640 KiB", where, "link the image to 1 MiB or above")
    segments = [*kernel, *(Segment(m.address, m.data) for m in placed), Segment(base, information.data)]
    return LoadedImage(
        ImageFormat.MULTIBOOT,
        check_segments(segments, target, where),
        image.entry,
        MappingProxyType({"eax": BOOT_MAGIC, "ebx": base}),
        information.command_line_address,
    )


def _read_image(data: bytes, where: str, target: Target, header: MultibootHeader) -> ElfImage:
    if header.flags & FLAG_ADDRESS_FIELDS:
        return _read_address_fields(data, where, header)
    if not data.startswith(ELF_MAGIC):
        raise ImageError("multiboot header without address fields in a file that is not ELF", where, "set flag 16")
    return read_elf(data, where, target.architecture)


def _read_address_fields(data: bytes, where: str, header: MultibootHeader) -> ElfImage:
    """Section 3.1.3: load_end_addr 0 means up to the end of the file, bss_end_addr 0 means no .bss."""
    start = header.offset - (header.header_address - header.load_address)
    load_end = header.load_end or header.load_address + len(data) - start
    bss_end = header.bss_end or load_end
    if not 0 <= start <= header.offset or not header.load_address <= load_end <= bss_end:
        raise ImageError("multiboot address fields contradict each other", where, "correct the header")
    length = load_end - header.load_address
    if start + length > len(data):
        raise ImageError(
            f"truncated: the header wants bytes up to {start + length} of {len(data)}", where, "copy it again"
        )
    segment = Segment(header.load_address, data[start : start + length], bss_end - load_end)
    return ElfImage((segment,), header.entry)


def _round_up(address: int) -> int:
    return -(-address // PAGE_BYTES) * PAGE_BYTES
