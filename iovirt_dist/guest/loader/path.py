"""From a file name and the topology's ``format`` to a loaded image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.loader.elf import ELF_MAGIC, load_elf
from iovirt_dist.guest.loader.image import PC, ImageFormat, LoadedImage, Target
from iovirt_dist.guest.loader.multiboot import Module, find_header, load_multiboot
from iovirt_dist.guest.loader.raw import ROM_UNIT_BYTES, load_flat, load_rom

_RESET_VECTOR_BYTES = 16
"""The CPU starts at FFFFFFF0h (Intel SDM volume 3, section 10.1.4)."""
_PC_ONLY = frozenset({ImageFormat.MULTIBOOT, ImageFormat.ROM})


def read_image(path: Path) -> bytes:
    """Return the content of an image file of any kind.

    Raises:
        ImageError: It is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("no such file", str(path), "build or install it, or correct the path") from error
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", str(path), "name a readable file") from error


def load_path(
    path: Path,
    target: Target,
    *,
    image_format: str = "auto",
    address: int | None = None,
    command_line: str = "",
    modules: Sequence[Module] = (),
) -> LoadedImage:
    """Read a file and load it.

    Args:
        path: The image file.
        target: The machine it goes into.
        image_format: ``auto``, ``elf``, ``multiboot``, ``flat`` or ``rom``.
        address: Where a flat image goes; None for the machine's usual place.
        command_line: For multiboot; other formats take it elsewhere (`virt`: the device tree) or not at all.
        modules: For multiboot.

    Raises:
        ImageError: The file is missing, unreadable, or not a usable image of that format.
    """
    return load_bytes(
        read_image(path),
        str(path),
        target,
        image_format=image_format,
        address=address,
        command_line=command_line,
        modules=modules,
    )


def load_bytes(
    data: bytes,
    where: str,
    target: Target,
    *,
    image_format: str = "auto",
    address: int | None = None,
    command_line: str = "",
    modules: Sequence[Module] = (),
) -> LoadedImage:
    """Load an image that is in memory; arguments and errors as in `load_path`."""
    kind = _detect(data, where, target) if image_format == "auto" else _parse_format(image_format, where)
    if kind in _PC_ONLY and target.machine != PC:
        raise ImageError(f"a {target.machine} machine takes no {kind.value} image", where, "use elf or flat")
    match kind:
        case ImageFormat.ELF:
            return load_elf(data, where, target)
        case ImageFormat.MULTIBOOT:
            return load_multiboot(data, where, target, command_line=command_line, modules=modules)
        case ImageFormat.ROM:
            return load_rom(data, where)
        case ImageFormat.FLAT:
            return load_flat(data, where, target, address)


def _parse_format(name: str, where: str) -> ImageFormat:
    try:
        return ImageFormat(name)
    except ValueError as error:
        names = ", ".join(member.value for member in ImageFormat)
        raise ImageError(f'unknown image format "{name}"', where, f"use auto, {names}") from error


def _has_reset_vector(data: bytes) -> bool:
    """Whether this can be a ROM: whole 64 KiB units, code where the CPU starts, 16 bytes from the end.

    Asked before the multiboot header, because U-Boot's ROM contains one for loading U-Boot another way.
    """
    return bool(data) and len(data) % ROM_UNIT_BYTES == 0 and data[-_RESET_VECTOR_BYTES] not in (0x00, 0xFF)


def _detect(data: bytes, where: str, target: Target) -> ImageFormat:
    """Tell the format from the content. On `pc` a flat image is never guessed: anything would pass for one."""
    if target.machine != PC:
        return ImageFormat.ELF if data.startswith(ELF_MAGIC) else ImageFormat.FLAT
    if _has_reset_vector(data):
        return ImageFormat.ROM
    if find_header(data) is not None:
        return ImageFormat.MULTIBOOT
    if data.startswith(ELF_MAGIC):
        return ImageFormat.ELF
    raise ImageError(
        "neither ELF, multiboot nor a ROM (a multiple of 64 KiB)", where, 'set format = "flat" if it is a flat binary'
    )
