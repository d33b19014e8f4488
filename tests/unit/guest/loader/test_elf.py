"""ELF images (`iovirt_dist.guest.loader.elf`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader import ImageFormat, Segment, load_elf, pc_target, virt_target
from tests.unit.guest.loader.support import ElfSegment, elf

PC = pc_target(16 << 20)
VIRT = virt_target(16 << 20)
MIB = 1 << 20
GOOD = elf(ElfSegment(MIB, b"code", 8), ElfSegment(MIB + 0x1000, b"data"))


def test_load_elf_of_i386_gives_segments_with_zero_fill() -> None:
    """Segments go to their physical addresses; what memory has beyond the file is zero fill."""
    image = load_elf(GOOD, "x", PC)

    assert image.kind is ImageFormat.ELF
    assert image.segments == (Segment(MIB, b"code", 4), Segment(MIB + 0x1000, b"data"))
    assert (image.entry, image.end) == (MIB, MIB + 0x1004)


def test_load_elf_of_riscv64_sorts_segments() -> None:
    """A 64-bit RISC-V file loads, whatever the order of its headers."""
    base = 0x8000_0000
    data = elf(ElfSegment(base + 0x1000, b"b"), ElfSegment(base, b"a"), bits=64, machine=243, entry=base)

    image = load_elf(data, "x", VIRT)

    assert [segment.address for segment in image.segments] == [base, base + 0x1000]


def test_load_elf_translates_a_virtual_entry_point() -> None:
    """A kernel linked high and loaded low starts at the physical address of its entry."""
    data = elf(ElfSegment(MIB, b"code", virtual=0xC010_0000), entry=0xC010_0002)

    assert load_elf(data, "x", PC).entry == MIB + 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no elf", "not an ELF file"),
        (b"\x7fELF", "truncated or damaged"),
        (GOOD[:80], "truncated"),
        (GOOD[:-1], "a segment ends at byte"),
        (elf(ElfSegment(MIB, b"x"), bits=64, machine=62), "64-bit little-endian EM_X86_64, not for 32-bit x86"),
        (elf(ElfSegment(MIB, b"x"), machine=243), "32-bit little-endian EM_RISCV"),
        (elf(ElfSegment(MIB, b"x"), machine=8, order=">"), "32-bit big-endian EM_MIPS"),
        (elf(ElfSegment(MIB, b"x"), kind=1), "ET_REL is not executable"),
        (elf(ElfSegment(MIB, b"x"), ElfSegment(0, b"", kind=3)), "dynamically linked"),
        (elf(), "nothing to load"),
        (elf(ElfSegment(MIB, b"x"), entry=5), "entry point 0x5 lies in no segment"),
        (elf(ElfSegment(0x9F000, bytes(0x2000))), "outside the RAM of a pc machine"),
        (elf(ElfSegment(64 * MIB, b"x")), "outside the RAM"),
        (elf(ElfSegment(MIB, bytes(8)), ElfSegment(MIB + 4, bytes(8))), "overlap"),
        (elf(ElfSegment(MIB, bytes(8), 4)), "smaller in memory"),
    ],
)
def test_load_elf_of_unusable_file_says_why(data: bytes, message: str) -> None:
    """Each refusal is one line with the file, what is wrong and what to do."""
    with pytest.raises(ImageError, match=message) as caught:
        load_elf(data, "images/x.elf", PC)

    text = str(caught.value)
    assert text.startswith("images/x.elf: ")
    assert "; " in text
    assert "\n" not in text


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_load_elf_of_damaged_file_loads_or_raises_image_error(at: int, value: int, length: int) -> None:
    """Whatever byte is changed and wherever the file is cut, no other exception comes out."""
    data = bytearray(GOOD)
    data[at] = value

    try:
        outcome: object = load_elf(bytes(data[:length]), "x", PC).segments
    except ImageError as error:
        outcome = str(error)

    assert outcome
