"""Multiboot images (`iovirt_dist.guest.loader.multiboot`, `iovirt_dist.guest.loader.multiboot_info`)."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader import ImageFormat, LoadedImage, Module, Segment, load_multiboot, pc_target
from iovirt_dist.guest.loader.multiboot import find_header
from tests.unit.guest.loader.support import ElfSegment, elf, multiboot_header

MIB = 1 << 20
PC = pc_target(16 * MIB)
KERNEL = elf(ElfSegment(MIB, multiboot_header(3) + b"code", 0x100), entry=MIB + 12)


def read(image: LoadedImage, address: int, length: int) -> bytes:
    """Read loaded bytes at a guest physical address."""
    found = [s for s in image.segments if s.address <= address and address + length <= s.address + len(s.data)]
    offset = address - found[0].address
    return found[0].data[offset : offset + length]


def text(image: LoadedImage, address: int) -> bytes:
    """Read a zero-terminated string."""
    segment = next(s for s in image.segments if s.address <= address < s.address + len(s.data))
    offset = address - segment.address
    return segment.data[offset : segment.data.index(b"\0", offset)]


def test_load_multiboot_of_elf_sets_the_promised_registers() -> None:
    """EAX holds the magic, EBX the information structure, the entry is the ELF entry."""
    image = load_multiboot(KERNEL, "x", PC)

    assert image.kind is ImageFormat.MULTIBOOT
    assert dict(image.registers) == {"eax": 0x2BADB002, "ebx": 0x8000}
    assert image.entry == MIB + 12
    assert Segment(MIB, multiboot_header(3) + b"code", 0x100 - 16) in image.segments


def test_information_describes_memory_command_line_and_loader() -> None:
    """Flags, mem_lower/upper, the memory map, the command line and the loader's name."""
    image = load_multiboot(KERNEL, "x", PC, command_line="job 64")

    info = image.registers["ebx"]
    flags, lower, upper, _, line, modules, _ = struct.unpack("<7I", read(image, info, 28))
    length, address = struct.unpack("<2I", read(image, info + 44, 8))
    (loader,) = struct.unpack("<I", read(image, info + 64, 4))
    entries = [struct.unpack("<IQQI", read(image, address + at, 24)) for at in range(0, length, 24)]
    assert (flags, lower, upper, modules) == (0b10_0100_1101, 640, 15 * 1024, 0)
    assert (text(image, line), text(image, loader), line) == (b"job 64", b"iovirt-dist", image.command_line_address)
    assert entries == [(20, 0, 640 << 10, 1), (20, 0xF0000, 0x10000, 2), (20, MIB, 15 * MIB, 1)]
    assert all(before[1] + before[2] <= after[1] for before, after in pairwise(entries))


def test_modules_lie_on_page_boundaries_behind_the_kernel() -> None:
    """Each module has its range and its string in the list."""
    image = load_multiboot(KERNEL, "x", PC, modules=[Module(b"a" * 5000, "first"), Module(b"b", "second")])

    count, address = struct.unpack("<2I", read(image, image.registers["ebx"] + 20, 8))
    records = [struct.unpack("<4I", read(image, address + 16 * index, 16)) for index in range(count)]
    assert [(start, end) for start, end, _, _ in records] == [
        (MIB + 0x1000, MIB + 0x1000 + 5000),
        (MIB + 0x3000, MIB + 0x3001),
    ]
    assert [text(image, string) for _, _, string, _ in records] == [b"first", b"second"]
    assert read(image, MIB + 0x3000, 1) == b"b"


def test_information_gives_way_to_a_low_segment() -> None:
    """Boot information goes behind what the image loads below 640 KiB."""
    data = elf(ElfSegment(0x8000, bytes(0x800)), ElfSegment(MIB, multiboot_header(0)), entry=MIB)

    assert load_multiboot(data, "x", PC).registers["ebx"] == 0x9000


def test_address_fields_say_what_is_loaded_where() -> None:
    """With flag 16 the file need not be ELF: bytes up to load_end, zeros up to bss_end."""
    header = multiboot_header(1 << 16, MIB + 8, MIB, MIB + 48, MIB + 64, MIB + 40)
    data = b"junk" + b"before.." + header + b"codecode" + b"behind"

    image = load_multiboot(data, "x", PC)

    assert image.segments[-1] == Segment(MIB, (b"before.." + header + b"codecode"), 16)
    assert image.entry == MIB + 40


def test_address_fields_of_zero_mean_whole_file_and_no_bss() -> None:
    """load_end_addr 0 is the end of the file, bss_end_addr 0 is none."""
    header = multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB + 32)

    image = load_multiboot(header + b"rest", "x", PC)

    assert image.segments[-1] == Segment(MIB, header + b"rest")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (bytes(8180) + multiboot_header(0), True),
        (bytes(8184) + multiboot_header(0), False),
        (b"\0" + multiboot_header(0), False),
        (struct.pack("<3I", 0x1BADB002, 0, 0), False),
        (struct.pack("<3I", 0x1BADB002, 0, 1) + multiboot_header(2), True),
        (multiboot_header(1 << 16), False),
        (b"", False),
    ],
)
def test_find_header_looks_at_aligned_words_of_the_first_8_kib(data: bytes, found: bool) -> None:
    """Alignment, checksum and the limit decide."""
    assert (find_header(data) is not None) is found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (elf(ElfSegment(MIB, b"code")), "no multiboot header"),
        (multiboot_header(4), "needs multiboot features 0x4"),
        (multiboot_header(0), "in a file that is not ELF"),
        (multiboot_header(1 << 16, MIB, MIB + 4, 0, 0, MIB), "contradict each other"),
        (multiboot_header(1 << 16, MIB + 4, MIB, 0, 0, MIB), "contradict each other"),
        (multiboot_header(1 << 16, MIB, MIB, MIB + 16, MIB + 8, MIB), "contradict each other"),
        (multiboot_header(1 << 16, MIB, MIB, MIB + 999, 0, MIB), "truncated"),
        (multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB + 999), "lies in no segment"),
        (elf(ElfSegment(MIB, multiboot_header(0)), ElfSegment(0x7000, bytes(0x99000))), "below 640 KiB"),
        (elf(ElfSegment(MIB, multiboot_header(0)), machine=243), "not for 32-bit x86"),
    ],
)
def test_load_multiboot_of_unusable_file_says_why(data: bytes, message: str) -> None:
    """Each refusal is an image error."""
    with pytest.raises(ImageError, match=message):
        load_multiboot(data, "x", PC)
