"""``iovirt disk resize``: a disk's image grows; a controller that has it open sees that, and tells its hypervisors.

The image's size is all there is to know: a controller or hypervisor that starts later finds it there.
"""

from __future__ import annotations

import os
import stat

from iovirt_dist.cli.disk_names import Disk, find_disk, is_there
from iovirt_dist.cli.disk_work import done
from iovirt_dist.controllers.block.extents import BLOCK_BYTES, SLOT_BITS
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.topology import Topology
from iovirt_dist.topology.extent import growing
from iovirt_dist.topology.units import format_size, parse_size


def resize_disk(topology: Topology, name: str, size: str, *, as_json: bool) -> int:
    """The work of ``iovirt disk resize``.

    Args:
        topology: Where the disk is.
        name: ``CONTROLLER/EXTENT``.
        size: What it is to have.
        as_json: Whether to say what was done as JSON.

    Raises:
        ConfigError: There is no such disk, or none of this size can be.
        LocalError: The disk cannot grow, or the image cannot be changed.
    """
    disk = find_disk(topology, name)
    size_bytes = _size(size)
    _require_growing(topology, disk)
    if size_bytes < disk.extent.size_bytes:
        what = f"has {format_size(disk.extent.size_bytes)} and cannot be made smaller"
        raise LocalError(what, disk.label, "export it, and make another")
    if size_bytes > disk.extent.size_bytes:
        _grow(disk, disk.extent.offset_bytes + size_bytes)
    return done("resized", disk, size_bytes, as_json=as_json)


def _size(text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except ValueError as error:
        raise ConfigError(str(error), f"'{text}'", "give a size such as 20GiB") from None
    if size_bytes % BLOCK_BYTES or not 0 < size_bytes < 1 << SLOT_BITS:
        raise ConfigError(f"{size_bytes} bytes are no disk", f"'{text}'", f"give a multiple of {BLOCK_BYTES}")
    return size_bytes


def _require_growing(topology: Topology, disk: Disk) -> None:
    """Refuse a disk whose size is another's or that something lies behind."""
    if disk.guest:
        raise ConfigError("an overlay is as large as its base", f"'{disk.label}'", "export it, and make it a disk")
    overlays = sorted({*disk.overlays, *(unit for unit in topology.overlays_of(disk.spec.name) if _over(disk, unit))})
    if overlays:
        raise LocalError(f"overlays lie over it: {', '.join(overlays)}", disk.label, "they are as large as their base")
    if disk.extent.read_only or disk.spec.read_only:
        raise LocalError("is read-only", disk.label, "only a disk that can be written grows")
    last = growing(disk.spec.extents, disk.spec.size_bytes)
    if last is None or last.name != disk.extent.name:
        fix = f"of {disk.spec.name} extent '{last.name}' can grow" if last else "change the topology"
        raise LocalError("does not alone reach to the end of its image", disk.label, fix)
    if not is_there(disk.file):
        what = "has no image yet, which would be made with the size in the topology"
        raise LocalError(what, f"{disk.label} ({disk.file})", f"iovirt disk create {disk.label}")


def _over(disk: Disk, unit: str) -> bool:
    return unit.partition("@")[0] == disk.extent.name


def _grow(disk: Disk, end_bytes: int) -> None:
    """Let the image end there, or behind it if another command was faster. The new space is a hole but for its end.

    Nobody's data is touched: the last block is allocated (posix_fallocate(3)), which changes no byte that is there,
    and never makes a file shorter as ftruncate(2) would.
    """
    try:
        fd = os.open(disk.file, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LocalError("is a device, which has the size that it has", str(disk.file))
            os.posix_fallocate(fd, end_bytes - BLOCK_BYTES, BLOCK_BYTES)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise LocalError(f"cannot be made larger ({os.strerror(error.errno or 0)})", str(disk.file)) from None
