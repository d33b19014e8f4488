"""The block controller's configuration and its table of units: extents, and overlays over them.

An extent is a byte range of the image that a guest sees as a whole disk, as an NVMe namespace is a range of the
medium. Its place in the table is its unit number. An overlay is unit ``EXTENT@GUEST``: an extent that nobody writes,
with what one guest has written over it. It has a number from its first use on, another one in another life of the
controller; requesters identify their units in each.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.wire.commands import UnitIdentity

BLOCK_BYTES: Final = 512
"""Smallest aligned unit of access: the sector of ATA and virtio-blk."""

MAX_EXTENTS: Final = 4096

MAX_OVERLAYS: Final = 4096
"""Overlays that one life of a controller opens: each costs a file descriptor and a map of its clusters."""

SLOT_BITS: Final = 48
"""Accesses are ordered in one linear range: the image from 0, the overlay that is unit n from ``n << SLOT_BITS``."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Durability(enum.Enum):
    """What a completed write promises."""

    WRITE_THROUGH = "write-through"
    """The write is on stable storage."""
    WRITE_BACK = "write-back"
    """The write is seen by every later read; it is on stable storage once a FLUSH submitted after it completes."""


@dataclass(frozen=True, slots=True)
class Extent:
    """One virtual disk.

    Attributes:
        name: By which IDENTIFY asks for it; its first 20 characters are the disk's serial number.
        offset_bytes: Start in the image, a multiple of 512.
        size_bytes: Length, a positive multiple of 512; None reaches to the end of the image.
        read_only: Writes and discards are refused.
    """

    name: str
    offset_bytes: int = 0
    size_bytes: int | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """What a block controller serves.

    Attributes:
        image: Raw image file, or a block device.
        size_bytes: The file is created sparse with this size if absent, and must be at least this long otherwise;
            None: it must exist.
        durability: What a completed write promises.
        read_only: Open the image read-only (shared lock); every extent is read-only then.
        extents: Virtual disks.
        queue_credits: Commands that one queue pair may have in flight.
        burst: Commands taken from one queue pair before the next has its turn.
        overlays: Folder of the overlays; None for the image's path with ``.overlays`` behind it.
        allowed_overlays: Those that may be made and used, ``EXTENT@GUEST``.
    """

    image: Path
    size_bytes: int | None = None
    durability: Durability = Durability.WRITE_THROUGH
    read_only: bool = False
    extents: tuple[Extent, ...] = (Extent("disk"),)
    queue_credits: int = 256
    burst: int = 8
    overlays: Path | None = None
    allowed_overlays: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unit:
    """A checked extent or an overlay as the core uses it.

    Attributes:
        number: Unit number.
        start_bytes: First byte, in the image or the overlay's slot.
        size_bytes: Length.
        read_only: Writes and discards are refused.
        identity: The packed `UnitIdentity`.
    """

    number: int
    start_bytes: int
    size_bytes: int
    read_only: bool
    identity: bytes


class ExtentTable:
    """Checked extents by number and by name.

    Args:
        extents: As configured; at most 4096.
        image_bytes: Size of the image.
        where: Names the configuration in errors.

    Raises:
        ConfigError: A name is bad or there twice, a range is not aligned or leaves the image, or two extents overlap
            and one of them is writable; the text names them.
    """

    def __init__(self, extents: Sequence[Extent], image_bytes: int, where: str = "extents") -> None:
        if not 0 < len(extents) <= MAX_EXTENTS:
            raise ConfigError(f"{len(extents)} extents", where, f"give 1 to {MAX_EXTENTS}")
        sized = [_sized(extent, image_bytes, where) for extent in extents]
        _refuse_overlaps(sized, where)
        self.units = [_unit(number, extent) for number, extent in enumerate(sized)]
        self._image_bytes = image_bytes
        self._overlays: dict[str, Unit] = {}
        self._by_name = {extent.name: unit for extent, unit in zip(sized, self.units, strict=True)}
        if len(self._by_name) != len(sized):
            names = [extent.name for extent in sized]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"extent '{twice}' is there twice", where, "give each its own name")

    def find(self, name: bytes) -> Unit | None:
        """Return the unit that IDENTIFY's payload names, None for an unknown or malformed name."""
        return self._by_name.get(name.decode("ascii", errors="replace"))

    def base_of(self, overlay: str) -> Unit | None:
        """Return the extent below ``EXTENT@GUEST``, None if it is not there."""
        return self._by_name.get(overlay.partition("@")[0])

    def protect_base(self, overlay: str) -> None:
        """Make the extent below ``EXTENT@GUEST`` read-only from now on."""
        base = self.base_of(overlay)
        if base is not None and not base.read_only:
            identity = UnitIdentity.unpack(base.identity)._replace(read_only=True)
            read_only = replace(base, read_only=True, identity=identity.pack())
            self.units[base.number] = self._by_name[overlay.partition("@")[0]] = read_only

    def grow(self, image_bytes: int) -> bool:
        """The image has another end: let the only extent that reached to the former one follow, if it can be written.

        Returns:
            Whether there is one.
        """
        end, self._image_bytes = self._image_bytes, image_bytes
        reaching = [unit for unit in self._by_name.values() if unit.start_bytes + unit.size_bytes == end]
        if len(reaching) != 1 or reaching[0].read_only or not end < image_bytes <= 1 << SLOT_BITS:
            return False
        unit = reaching[0]
        size = image_bytes - unit.start_bytes
        identity = UnitIdentity.unpack(unit.identity)._replace(size_bytes=size).pack()
        name = next(name for name, known in self._by_name.items() if known is unit)
        self.units[unit.number] = self._by_name[name] = replace(unit, size_bytes=size, identity=identity)
        return True

    @property
    def overlays(self) -> int:
        """How many overlays have a number."""
        return len(self._overlays)

    def reserved(self, name: str) -> bool:
        """Whether an overlay has a number."""
        return name in self._overlays

    def reserve(self, name: str) -> tuple[Unit, Unit]:
        """Return an overlay's unit, with a number from now on, and its base, which exists."""
        base = self.base_of(name)
        assert base is not None, "checked by whoever asks"
        unit = self._overlays.get(name)
        if unit is None:
            number = len(self.units)
            identity = UnitIdentity.unpack(base.identity)._replace(read_only=False).pack()
            unit = Unit(number, number << SLOT_BITS, base.size_bytes, read_only=False, identity=identity)
            self._overlays[name] = unit
            self.units.append(replace(unit, size_bytes=0))
        return unit, base

    def admit(self, name: str) -> Unit:
        """Let the unit of an overlay, which has a number, be found and accessed."""
        unit = self._overlays[name]
        self.units[unit.number] = self._by_name[name] = unit
        return unit

    def retire(self, name: str) -> Unit:
        """Let the unit of an overlay not be found any more; every access to it is out of range."""
        unit = self._by_name.pop(name)
        self.units[unit.number] = replace(unit, size_bytes=0)
        return unit


def _sized(extent: Extent, image_bytes: int, where: str) -> Extent:
    """Check one extent and fill in its size."""
    if not _NAME.fullmatch(extent.name):
        raise ConfigError(f"bad extent name '{extent.name}'", where, "use up to 64 letters, digits, '_', '.' and '-'")
    where = f"{where}: {extent.name}"
    size = image_bytes - extent.offset_bytes if extent.size_bytes is None else extent.size_bytes
    if extent.offset_bytes % BLOCK_BYTES or size % BLOCK_BYTES:
        raise ConfigError(
            f"offset {extent.offset_bytes} and size {size} are not both multiples of {BLOCK_BYTES}", where, "align them"
        )
    if extent.offset_bytes < 0 or size <= 0 or extent.offset_bytes + size > image_bytes:
        raise ConfigError(
            f"{_range(replace(extent, size_bytes=size))} is not inside the image of {image_bytes} bytes",
            where,
            "make the image larger or the extent smaller",
        )
    return replace(extent, size_bytes=size)


def _refuse_overlaps(extents: Sequence[Extent], where: str) -> None:
    """Compare each extent with those before it that reach furthest: the furthest, and the furthest writable one."""
    furthest: Extent | None = None
    furthest_writable: Extent | None = None
    for extent in sorted(extents, key=lambda extent: extent.offset_bytes):
        before = furthest_writable if extent.read_only else furthest
        if before is not None and _end(before) > extent.offset_bytes:
            raise ConfigError(
                f"extents '{before.name}' ({_range(before)}) and '{extent.name}' ({_range(extent)}) overlap",
                where,
                "move one, or make both read-only",
            )
        if furthest is None or _end(extent) > _end(furthest):
            furthest = extent
        if not extent.read_only and (furthest_writable is None or _end(extent) > _end(furthest_writable)):
            furthest_writable = extent


def _end(extent: Extent) -> int:
    """Return the first byte behind a sized extent."""
    return extent.offset_bytes + (extent.size_bytes or 0)


def _range(extent: Extent) -> str:
    return f"bytes {extent.offset_bytes}..{_end(extent) - 1}"


def _unit(number: int, extent: Extent) -> Unit:
    size = extent.size_bytes or 0
    identity = UnitIdentity(size, BLOCK_BYTES, extent.read_only, extent.name[:20]).pack()
    return Unit(number, extent.offset_bytes, size, extent.read_only, identity)
