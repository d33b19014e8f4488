"""``iovirt disk ls``: extents and overlays, how much they take, over what they lie, and who uses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from iovirt_dist.cli.disk_copy import Source
from iovirt_dist.cli.disk_names import Disk, extents_of, holder_of, is_there
from iovirt_dist.cli.output import EXIT_DONE, print_json, print_table
from iovirt_dist.controllers.block.overlay_files import OverlayFolder
from iovirt_dist.errors import ImageError
from iovirt_dist.topology import BlockSpec, Topology
from iovirt_dist.topology.units import format_size

STAT_BLOCK_BYTES = 512
"""What st_blocks counts (inode(7))."""


class DiskRow(NamedTuple):
    """A line of the list.

    Attributes:
        controller: Name of the block controller.
        disk: ``EXTENT`` or ``EXTENT@GUEST``.
        kind: ``extent`` or ``overlay``.
        size_bytes: Length of the disk.
        allocated_bytes: What it takes on the host; of an overlay with its map.
        base: Of an overlay ``CONTROLLER/EXTENT``.
        guests: Who has it in the topology.
        state: ``absent`` (made when it is needed), ``free``, ``in use``, ``unused`` (an overlay of no guest that the
            topology has), or ``damaged``.
        pid: Process that uses it, 0 for none.
        file: Path of image or overlay.
        problem: What is wrong with it.
    """

    controller: str
    disk: str
    kind: str
    size_bytes: int
    allocated_bytes: int
    base: str
    guests: tuple[str, ...]
    state: str
    pid: int
    file: str
    problem: str = ""


def disk_rows(topology: Topology) -> list[DiskRow]:
    """Return every disk: by controller, each extent with its overlays behind it."""
    blocks = [spec for spec in topology.controllers.values() if isinstance(spec, BlockSpec)]
    return [row for spec in blocks for row in _rows_of(topology, spec)]


def show_disks(topology: Topology, *, as_json: bool) -> int:
    """The work of ``iovirt disk ls``."""
    rows = disk_rows(topology)
    if as_json:
        print_json({"disks": [_as_json(row) for row in rows]})
        return EXIT_DONE
    columns = ("disk", "kind", "size", "allocated", "guest", "state")
    print_table(columns, [_cells(row) for row in rows])
    return EXIT_DONE


def _as_json(row: DiskRow) -> dict[str, Any]:
    return {**row._asdict(), "pid": row.pid or None, "base": row.base or None}


def _cells(row: DiskRow) -> tuple[str, ...]:
    state = f"in use by {row.pid}" if row.pid else row.state
    size, allocated = format_size(row.size_bytes), format_size(row.allocated_bytes)
    return f"{row.controller}/{row.disk}", row.kind, size, allocated, " ".join(row.guests) or "-", state


def _rows_of(topology: Topology, spec: BlockSpec) -> Iterator[DiskRow]:
    allowed = topology.overlays_of(spec.name)
    units = sorted(allowed.union(OverlayFolder(spec.overlays).units()))
    for extent in extents_of(spec):
        yield _extent_row(topology, Disk(spec, extent))
        for unit in units:
            base, _, guest = unit.partition("@")
            if base == extent.name:
                yield _overlay_row(Disk(spec, extent, guest), wanted=unit in allowed)


def _extent_row(topology: Topology, disk: Disk) -> DiskRow:
    attached = [guest for guest in topology.guests.values() if guest.disk and guest.disk.controller == disk.spec.name]
    guests = [g.name for g in attached if g.disk and g.disk.extent.name == disk.extent.name and not g.disk.overlay]
    pid = holder_of(disk.file)
    return DiskRow(
        controller=disk.spec.name,
        disk=disk.unit,
        kind="extent",
        size_bytes=disk.extent.size_bytes,
        allocated_bytes=_allocated(disk),
        base="",
        guests=tuple(guests),
        state="in use" if pid else "free" if is_there(disk.file) else "absent",
        pid=pid or 0,
        file=str(disk.file),
    )


def _overlay_row(disk: Disk, *, wanted: bool) -> DiskRow:
    there = is_there(disk.file)
    pid = holder_of(disk.file) if there else None
    problem = _problem(disk) if there else ""
    state = "free" if wanted else "unused"
    return DiskRow(
        controller=disk.spec.name,
        disk=disk.unit,
        kind="overlay",
        size_bytes=disk.extent.size_bytes,
        allocated_bytes=disk.file.stat().st_blocks * STAT_BLOCK_BYTES if there else 0,
        base=f"{disk.spec.name}/{disk.extent.name}",
        guests=(disk.guest,),
        state="in use" if pid else "damaged" if problem else state if there else "absent",
        pid=pid or 0,
        file=str(disk.file),
        problem=problem,
    )


def _problem(disk: Disk) -> str:
    """What its header shows to be wrong with an overlay, empty for nothing."""
    try:
        header = OverlayFolder(disk.spec.overlays).header(disk.unit)
        header.check_base(disk.extent.size_bytes, header.fingerprint, str(disk.file))
    except ImageError as error:
        return str(error)
    return ""


def _allocated(disk: Disk) -> int:
    """Return how many bytes of an extent are no holes (lseek(2), SEEK_DATA); 0 if this user may not read it.

    Raises:
        LocalError: It cannot be read for another reason.
    """
    try:
        fd = os.open(disk.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        ranges = Source(fd, disk.file).data_ranges(disk.extent.offset_bytes, disk.extent.end_bytes)
        return sum(end - start for start, end in ranges)
    finally:
        os.close(fd)
