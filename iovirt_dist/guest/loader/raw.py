"""Images without a header: flat binaries and ROMs."""

from __future__ import annotations

from typing import Final

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader.image import GIB, KIB, MIB, ImageFormat, LoadedImage, Segment, Target, check_segments

ROM_UNIT_BYTES: Final = 64 * KIB
"""A ROM consists of whole real-mode segments, because it is entered with CS = F000h."""

ROM_MAX_BYTES: Final = 16 * MIB
"""The PIIX3 decodes at most 16 MiB of BIOS below 4 GiB."""

RESET_VECTOR: Final = 0xFFFF_FFF0
"""First fetch after RESET (Intel SDM volume 3, section 9.1.4)."""


def load_flat(data: bytes, where: str, target: Target, address: int | None = None) -> LoadedImage:
    """Load a flat binary; it is entered at its first byte.

    Args:
        data: The whole file.
        where: Its name, for messages.
        target: The machine.
        address: Where it goes; None for the machine's usual place.

    Raises:
        ImageError: Empty, or not inside RAM.
    """
    place = target.flat_address if address is None else address
    if not data:
        raise ImageError("the image is empty", where, "build or copy it again")
    return LoadedImage(ImageFormat.FLAT, check_segments([Segment(place, data)], target, where), place)


def load_rom(data: bytes, where: str) -> LoadedImage:
    """Load an x86 ROM that ends at 4 GiB and holds the reset vector.

    Args:
        data: The whole file.
        where: Its name, for messages.

    Raises:
        ImageError: Its size is not a multiple of 64 KiB between 64 KiB and 16 MiB.
    """
    if not data or len(data) % ROM_UNIT_BYTES or len(data) > ROM_MAX_BYTES:
        raise ImageError(
            f"a ROM is a multiple of 64 KiB up to 16 MiB, this file has {len(data)} bytes",
            where,
            "pad or copy it again, or set another format",
        )
    return LoadedImage(ImageFormat.ROM, (Segment(4 * GIB - len(data), data),), RESET_VECTOR)
