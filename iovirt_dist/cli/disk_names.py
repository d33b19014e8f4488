"""Disks as ``iovirt disk`` names them: ``CONTROLLER/EXTENT`` and ``CONTROLLER/EXTENT@GUEST``, and who has them open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from iovirt_dist.cli.disk_copy import in_words
from iovirt_dist.controllers.block.extents import BLOCK_BYTES
from iovirt_dist.controllers.block.overlay_files import OverlayFolder, overlay_path
from iovirt_dist.controllers.locking import lock_holder, lock_holder_pid
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.topology import BlockSpec, Topology
from iovirt_dist.topology.extent import ExtentSpec, follow_image
from iovirt_dist.topology.parse import suggestion


@dataclass(frozen=True, slots=True)
class Disk:
    """An extent, or an overlay over one.

    Attributes:
        spec: Its controller.
        extent: The extent, or the base.
        guest: Whose overlay it is; empty for the extent itself.
    """

    spec: BlockSpec
    extent: ExtentSpec
    guest: str = ""

    @property
    def unit(self) -> str:
        """What the controller calls it."""
        return f"{self.extent.name}@{self.guest}" if self.guest else self.extent.name

    @property
    def label(self) -> str:
        """What the user calls it."""
        return f"{self.spec.name}/{self.unit}"

    @property
    def file(self) -> Path:
        """The overlay's file, or the image."""
        return overlay_path(self.spec.overlays, self.unit) if self.guest else self.spec.image

    @property
    def overlays(self) -> list[str]:
        """Units of the overlays over the extent that are there."""
        return [
            unit for unit in OverlayFolder(self.spec.overlays).units() if unit.partition("@")[0] == self.extent.name
        ]


def find_disk(topology: Topology, name: str) -> Disk:
    """Find the disk of a name; a controller with one extent may leave that out.

    Raises:
        ConfigError: There is no such controller or extent.
    """
    where = f"'{name}'"
    place, _, guest = name.partition("@")
    controller, slash, extent = place.partition("/")
    blocks = {str(spec.name): spec for spec in topology.controllers.values() if isinstance(spec, BlockSpec)}
    if controller not in blocks:
        raise ConfigError(f"no block controller '{controller}'", where, suggestion(controller, blocks))
    spec = blocks[controller]
    extents = {entry.name: entry for entry in extents_of(spec)}
    if not slash and len(extents) == 1:
        extent = next(iter(extents))
    if extent not in extents:
        what = f"controller '{controller}' has no extent '{extent}'"
        if not slash:
            what = f"controller '{controller}' has {len(extents)} extents"
        raise ConfigError(what, where, suggestion(extent, extents) if slash else f"name one: {', '.join(extents)}")
    return Disk(spec, extents[extent], guest)


def extents_of(spec: BlockSpec) -> tuple[ExtentSpec, ...]:
    """Return a controller's extents as they are with the image that is there, which may have been made larger."""
    try:
        image_bytes = spec.image.stat().st_size // BLOCK_BYTES * BLOCK_BYTES
    except OSError:
        image_bytes = 0
    fixed = OverlayFolder(spec.overlays).fixed({extent.name: extent.size_bytes for extent in spec.extents})
    return follow_image(spec.extents, spec.size_bytes, image_bytes, fixed)


def check_guest(topology: Topology, disk: Disk) -> None:
    """Refuse an overlay that no guest would use; an extent is fine.

    Raises:
        ConfigError: The topology gives the guest no overlay over this extent.
    """
    units = topology.overlays_of(disk.spec.name)
    if disk.guest and disk.unit not in units:
        known = suggestion(disk.label, [f"{disk.spec.name}/{unit}" for unit in units]) if units else ""
        what = f"no guest '{disk.guest}' has an overlay over extent '{disk.extent.name}'"
        raise ConfigError(what, f"'{disk.label}'", known or "set overlay = true in its devices")


def is_there(path: Path) -> bool:
    """Whether there is a file, of whatever kind.

    Raises:
        LocalError: This user may not look.
    """
    with in_words("cannot be looked at", str(path)):
        return path.exists()


def holder_of(path: Path) -> int | None:
    """Return the process that has a file locked, None for none; nothing is locked to find out."""
    return _ask(path)[0]


def require_free(path: Path, label: str) -> None:
    """Refuse to work on a file that a process has locked.

    Raises:
        LocalError: It is in use.
    """
    pid, who = _ask(path)
    if pid is not None:
        raise LocalError(f"is in use by {who}", f"{label} ({path})", "stop that first: iovirt down")


def _ask(path: Path) -> tuple[int | None, str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None, ""
    try:
        pid = lock_holder_pid(fd)
        return pid, "" if pid is None else lock_holder(fd)
    finally:
        os.close(fd)
