"""Static ELF programs: what is read from them, and the one-line errors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.program.elf import load_program, parse_program
from iovirt_dist.guest.program.tables import EXECUTE, READ, WRITE
from tests.unit.guest.program.support import CODE, DATA, Segment, elf, program

TEXT = Segment(CODE, b"\x90" * 8, 8, 5)
PT_INTERP, PT_GNU_STACK = 3, 0x6474E551


@pytest.mark.parametrize("architecture", [X86_64, I386, RISCV64])
def test_program_is_read_with_its_segments(architecture: Architecture) -> None:
    """Addresses, contents, sizes, protections, entry point, heap and program headers."""
    image = parse_program(elf(architecture, [TEXT, Segment(DATA, b"abc", 0x2345, 6)], CODE + 4), "x")
    assert image.architecture is architecture
    assert [tuple(s) for s in image.segments] == [
        (CODE, b"\x90" * 8, 8, READ | EXECUTE),
        (DATA, b"abc", 0x2345, READ | WRITE),
    ]
    assert (image.entry, image.break_start, image.header_count) == (CODE + 4, DATA + 0x3000, 2)


def test_program_headers_in_a_segment_have_an_address() -> None:
    """The segment that begins with the file holds them, as linkers arrange it (AT_PHDR)."""
    raw = bytearray(elf(X86_64, [TEXT], CODE))
    raw[64 + 8 : 64 + 16] = bytes(8)  # p_offset
    raw[64 + 32 : 64 + 48] = (len(raw).to_bytes(8, "little")) * 2
    image = parse_program(bytes(raw), "x")
    assert (image.headers, image.header_bytes) == (CODE + 64, 56)


def test_position_independent_program_is_moved_to_its_base() -> None:
    """ET_DYN without an interpreter (static-pie)."""
    image = parse_program(elf(X86_64, [Segment(0x1000, b"\x90" * 8, 8, 5)], 0x1000, kind=3), "x")
    base = X86_64.position_independent_base
    assert (image.entry, image.segments[0].address) == (base + 0x1000, base + 0x1000)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"#!/bin/sh\n", "x: not an ELF file; name a static ELF program"),
        (elf(X86_64, [TEXT], CODE, extra=[(PT_INTERP, 4)]), "x: dynamically linked: .*; link it with -static"),
        (elf(X86_64, [TEXT], CODE, machine=183), "x: made for 64-bit little-endian EM_AARCH64, .*; use a program for"),
        (elf(X86_64, [TEXT], CODE, machine=3), "x: made for 64-bit little-endian EM_386"),
        (elf(X86_64, [TEXT], CODE, kind=1), "x: ELF type ET_REL is not executable"),
        (elf(X86_64, [TEXT], CODE, kind=4), "x: ELF type ET_CORE is not executable"),
        (elf(X86_64, [TEXT], DATA), "x: entry point 0x200000 lies in no executable segment"),
        (elf(X86_64, [TEXT._replace(flags=6)], CODE), "x: entry point 0x100000 lies in no executable segment"),
        (elf(X86_64, [TEXT._replace(address=8)], 8), "x: segment 0x8-0x10 is outside"),
        (elf(X86_64, [TEXT._replace(address=1 << 63)], CODE), "x: segment 0x8000000000000000-.* is outside"),
        (elf(X86_64, [TEXT._replace(memory_bytes=4)], CODE), "x: ELF segment is smaller in memory"),
        (elf(X86_64, [TEXT._replace(memory_bytes=1 << 30)], CODE), "x: needs 1073741824 bytes"),
        (elf(X86_64, [TEXT], CODE)[:-1], "x: truncated"),
        (elf(X86_64, [TEXT], CODE)[:70], "x: ELF file is truncated or damaged"),
        (elf(X86_64, [], CODE), "x: entry point"),
        (elf(X86_64, [TEXT], CODE, extra=[(PT_GNU_STACK, 6)] * 200), "x: 201 program headers"),
    ],
)
def test_unusable_program_is_one_line(data: bytes, text: str) -> None:
    """What is wrong, where, and what to do."""
    with pytest.raises(ImageError, match=text):
        parse_program(data, "x")


def test_program_for_another_abi_than_asked_for_is_refused() -> None:
    """The topology names the ABI."""
    assert parse_program(program(I386, "90"), "x", "linux_i386").architecture is I386
    with pytest.raises(ImageError, match="a program for linux_i386, not for linux_x86_64"):
        parse_program(program(I386, "90"), "x", "linux_x86_64")


def test_file_that_is_missing_or_no_file_is_one_line(tmp_path: Path) -> None:
    """A path that does not exist, and a directory."""
    with pytest.raises(ImageError, match="no such file; build or install it"):
        load_program(tmp_path / "x")
    with pytest.raises(ImageError, match="cannot be read"):
        load_program(tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=8), st.integers(0, 200))
def test_damaged_program_is_an_image_error_or_a_program(changes: list[tuple[int, int]], cut: int) -> None:
    """Any byte of the headers changed, any length: no other exception."""
    raw = bytearray(program(X86_64, "90"))
    for position, byte in changes:
        raw[position % len(raw)] = byte
    with contextlib.suppress(ImageError):
        parse_program(bytes(raw[: len(raw) - cut]), "x")
