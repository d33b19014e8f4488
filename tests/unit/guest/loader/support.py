"""Builders of small images."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass
class ElfSegment:
    """One PT_LOAD header with its bytes; `memory_bytes` of 0 means the size of `data`."""

    address: int
    data: bytes
    memory_bytes: int = 0
    virtual: int | None = None
    kind: int = 1


def elf(
    *segments: ElfSegment, bits: int = 32, machine: int = 3, entry: int | None = None, kind: int = 2, order: str = "<"
) -> bytes:
    """Build an ELF executable: header, program headers, then the segments' bytes."""
    wide = bits == 64
    header_bytes, entry_bytes = (64, 56) if wide else (52, 32)
    offset = header_bytes + entry_bytes * len(segments)
    headers, body = b"", b""
    for segment in segments:
        virtual = segment.address if segment.virtual is None else segment.virtual
        size = segment.memory_bytes or len(segment.data)
        place = (offset + len(body), virtual, segment.address, len(segment.data), size)
        headers += (
            struct.pack(order + "II6Q", segment.kind, 7, *place, 1)
            if wide
            else struct.pack(order + "8I", segment.kind, *place, 7, 1)
        )
        body += segment.data
    start = segments[0].address if entry is None and segments else entry or 0
    identification = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    layout = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    header = struct.pack(
        order + layout, kind, machine, 1, start, header_bytes, 0, 0, header_bytes, entry_bytes, len(segments), 0, 0, 0
    )
    return identification + header + headers + body


def multiboot_header(flags: int, *fields: int) -> bytes:
    """Build a valid multiboot header, with five address fields if given."""
    return struct.pack("<3I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF) + struct.pack(
        f"<{len(fields)}I", *fields
    )
