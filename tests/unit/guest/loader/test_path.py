"""Formats by content, and the formats without a header (`iovirt_dist.guest.loader.path`, `.raw`)."""

from __future__ import annotations

from pathlib import Path

import pytest

import iovirt_dist
from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader import ImageFormat, Segment, Target, load_bytes, load_path, pc_target, virt_target
from tests.unit.guest.loader.support import ElfSegment, elf, multiboot_header

MIB = 1 << 20
PC = pc_target(16 * MIB)
VIRT = virt_target(16 * MIB)
ROM = bytes(65520) + b"\xe9" + bytes(15)
BUNDLED = Path(iovirt_dist.__file__).parent / "images" / "guestos.elf"


@pytest.mark.parametrize(
    ("data", "target", "kind"),
    [
        (elf(ElfSegment(MIB, b"x")), PC, ImageFormat.ELF),
        (elf(ElfSegment(MIB, multiboot_header(0))), PC, ImageFormat.MULTIBOOT),
        (ROM, PC, ImageFormat.ROM),
        (multiboot_header(0) + ROM[12:], PC, ImageFormat.ROM),
        (elf(ElfSegment(1 << 31, b"x"), bits=64, machine=243), VIRT, ImageFormat.ELF),
        (bytes(65536), VIRT, ImageFormat.FLAT),
    ],
)
def test_auto_detects_the_format(data: bytes, target: Target, kind: ImageFormat) -> None:
    """The content decides, and on `virt` everything that is not ELF is flat."""
    assert load_bytes(data, "x", target).kind is kind


def test_rom_ends_at_4_gib_and_starts_at_the_reset_vector() -> None:
    """A ROM of 128 KiB lies at FFFE0000h."""
    image = load_bytes(bytes(0x20000), "x", PC, image_format="rom")

    assert image.segments == (Segment(0xFFFE_0000, bytes(0x20000)),)
    assert image.entry == 0xFFFF_FFF0


@pytest.mark.parametrize(
    ("target", "address", "place"), [(PC, None, 0x7C00), (VIRT, None, 1 << 31), (VIRT, 0x8020_0000, 0x8020_0000)]
)
def test_flat_goes_to_the_machines_place_or_the_given_one(target: Target, address: int | None, place: int) -> None:
    """A flat image is entered at its first byte."""
    image = load_bytes(b"code", "x", target, image_format="flat", address=address)

    assert (image.segments, image.entry) == ((Segment(place, b"code"),), place)


@pytest.mark.parametrize(
    ("data", "target", "image_format", "message"),
    [
        (b"abc", PC, "auto", "neither ELF, multiboot nor a ROM"),
        (b"", PC, "auto", "neither ELF"),
        (bytes(65536), PC, "auto", "neither ELF"),
        (b"", VIRT, "auto", "image is empty"),
        (b"abc", PC, "rom", "multiple of 64 KiB"),
        (bytes(17 * MIB), PC, "rom", "up to 16 MiB"),
        (bytes(65536), VIRT, "rom", "takes no rom image"),
        (b"abc", VIRT, "multiboot", "takes no multiboot image"),
        (b"abc", PC, "elf", "not an ELF file"),
        (b"abc", PC, "aout", 'unknown image format "aout"'),
        (bytes(17 * MIB), VIRT, "flat", "outside the RAM"),
    ],
)
def test_unusable_bytes_are_image_errors(data: bytes, target: Target, image_format: str, message: str) -> None:
    """Each refusal says what is wrong."""
    with pytest.raises(ImageError, match=message):
        load_bytes(data, "x", target, image_format=image_format)


def test_missing_file_is_an_image_error(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    with pytest.raises(ImageError, match=r"absent\.bin: no such file; build or install it"):
        load_path(tmp_path / "absent.bin", PC)


def test_unreadable_file_is_an_image_error(tmp_path: Path) -> None:
    """A folder in place of a file is told with the system's reason."""
    with pytest.raises(ImageError, match="cannot be read"):
        load_path(tmp_path, PC)


def test_file_is_read_and_loaded(tmp_path: Path) -> None:
    """`load_path` passes the file's bytes and all choices on."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"code")

    image = load_path(path, VIRT, image_format="flat", address=0x8000_1000)

    assert image.segments == (Segment(0x8000_1000, b"code"),)


def test_bundled_guest_os_is_a_multiboot_image() -> None:
    """The image that ships with the package loads as what it is."""
    image = load_path(BUNDLED, PC, command_line="idle")

    assert image.kind is ImageFormat.MULTIBOOT
