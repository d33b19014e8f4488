"""``iovirt disk create``, ``export``, ``import`` and ``rm``: what they do to images and overlays that nobody uses."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iovirt_dist.cli.disk_copy import (
    STEP_BYTES,
    Source,
    copy_around,
    copy_file,
    copy_storage,
    in_words,
    open_source,
    replacing,
    runs_of,
    source_bytes,
    zero_runs,
)
from iovirt_dist.cli.disk_names import Disk, check_guest, find_disk, is_there, require_free
from iovirt_dist.cli.output import EXIT_DONE, note, print_json
from iovirt_dist.cli.progress import copying
from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder
from iovirt_dist.controllers.block.storage import FileStorage, Storage
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.topology import BlockSpec, Topology
from iovirt_dist.topology.units import format_size

STDOUT: Final = "/dev/stdout"
"""May stand for a plain file, which must not be replaced below whoever has it open."""


def create_disk(topology: Topology, name: str, source: Path | None, *, as_json: bool) -> int:
    """The work of ``iovirt disk create``: make the file now that a controller would make when it is needed.

    Raises:
        ConfigError: There is no such disk in the topology.
        LocalError: It is there, or cannot be made.
    """
    disk = find_disk(topology, name)
    check_guest(topology, disk)
    if is_there(disk.file):
        fix = f"put something into it with: iovirt disk import FILE {disk.label}"
        raise LocalError("is there already", f"{disk.label} ({disk.file})", fix)
    if source is not None:
        return import_disk(topology, source, name, as_json=as_json)
    if disk.guest:
        with _base(disk) as base, _if_made_meanwhile(disk), OverlayFolder(disk.spec.overlays).making(disk.unit, base):
            pass
    else:
        with in_words("cannot be made", str(disk.spec.image)):
            FileStorage(disk.spec.image, disk.spec.size_bytes).close()
    return done("created", disk, disk.extent.size_bytes, as_json=as_json)


def export_disk(topology: Topology, name: str, target: Path, *, as_json: bool) -> int:
    """The work of ``iovirt disk export``: a raw image of what the guest sees.

    Raises:
        ConfigError: There is no such disk.
        LocalError: It is in use, or the file cannot be written.
        ImageError: The overlay is damaged or has another base.
    """
    disk = find_disk(topology, name)
    _check_target(topology, target)
    with _content(disk) as (storage, offset), replacing(target.resolve(), disk.extent.size_bytes) as fd:
        where = f"{disk.label} ({disk.file})"
        copy_storage(storage, offset, disk.extent.size_bytes, fd, where, f"export {disk.label}")
    return done("exported", disk, disk.extent.size_bytes, as_json=as_json, file=target)


def import_disk(topology: Topology, source: Path, name: str, *, as_json: bool) -> int:
    """The work of ``iovirt disk import``: the disk becomes a raw image's content, zeroes behind its end.

    Raises:
        ConfigError: There is no such disk in the topology.
        LocalError: It is in use, too small, or below overlays; or a file cannot be read or written.
    """
    disk = find_disk(topology, name)
    check_guest(topology, disk)
    with contextlib.closing(open_source(source)) as file:
        length = source_bytes(file)
        if length > disk.extent.size_bytes:
            what = (
                f"{format_size(length)} do not fit into {disk.label}, which has {format_size(disk.extent.size_bytes)}"
            )
            raise LocalError(what, str(source), "make the extent larger in the topology")
        from_file = Source(file.fileno(), source)
        if disk.guest:
            _import_overlay(disk, from_file, length)
        else:
            _import_extent(disk, from_file, length)
    return done("imported", disk, length, as_json=as_json, file=source)


def remove_overlay(topology: Topology, name: str, *, as_json: bool) -> int:
    """The work of ``iovirt disk rm``: the guest's disk is its base again.

    Raises:
        ConfigError: There is no such disk, or it is no overlay.
        LocalError: It is in use, or not there.
    """
    disk = find_disk(topology, name)
    if not disk.guest:
        units = [f"{disk.spec.name}/{unit}" for unit in disk.overlays]
        fix = f"its overlays: {', '.join(units)}" if units else "remove its image yourself if you mean that"
        raise ConfigError("only overlays can be removed", f"'{disk.label}'", fix)
    _require_there(disk)
    require_free(disk.file, disk.label)
    OverlayFolder(disk.spec.overlays).remove(disk.unit)
    return done("removed", disk, disk.extent.size_bytes, as_json=as_json)


def done(what: str, disk: Disk, length: int, *, as_json: bool, file: Path | None = None) -> int:
    """Say what was done with a disk, and with how much of it."""
    if as_json:
        found = {"file": str(file)} if file is not None else {}
        print_json({what: disk.label, "bytes": length, **found})
    else:
        beside = {"exported": f" to {file}", "imported": f" from {file}"}.get(what, "")
        note(f"{what} {disk.label}{beside} ({format_size(length)})")
    return EXIT_DONE


def _require_there(disk: Disk) -> None:
    if not is_there(disk.file):
        raise LocalError("there is no such overlay", f"{disk.label} ({disk.file})", "see 'iovirt disk ls'")


def _check_target(topology: Topology, target: Path) -> None:
    """Refuse to replace what is no plain file, an image of the topology itself, or one that a process has open."""
    if str(target) == STDOUT or (is_there(target) and not stat.S_ISREG(target.stat().st_mode)):
        raise ConfigError("is no plain file", f"'{target}'", "name a file to be written")
    for spec in topology.controllers.values():
        if not isinstance(spec, BlockSpec) or not is_there(target):
            continue
        own = [spec.image, *spec.overlays.glob("*")]
        if any(_is_same(path, target) for path in own):
            raise ConfigError(f"is of controller '{spec.name}'", f"'{target}'", "name another file")
    require_free(target, "file to be written")


def _is_same(path: Path, target: Path) -> bool:
    """Whether two names are of one file; one that this user may not look at is none that he could replace."""
    try:
        return path.samefile(target)
    except OSError:
        return False


@contextlib.contextmanager
def _base(disk: Disk) -> Iterator[Base]:
    """Open the base of an overlay, to read."""
    require_free_of_writers(disk)
    image = FileStorage(disk.spec.image, disk.spec.size_bytes, read_only=True)
    try:
        yield Base(image, disk.extent.offset_bytes, disk.extent.size_bytes, str(disk.spec.image))
    finally:
        with in_words("cannot be closed", str(disk.spec.image)):
            image.close()


def require_free_of_writers(disk: Disk) -> None:
    """Refuse an image that a controller has open to write; one that only reads it disturbs nobody.

    Raises:
        LocalError: It is in use.
    """
    if not disk.spec.read_only:
        require_free(disk.spec.image, disk.spec.name)
    if not is_there(disk.spec.image):
        what = "has no image yet, so there is no base"
        raise LocalError(what, f"{disk.spec.name} ({disk.spec.image})", f"iovirt disk create {disk.spec.name}")


@contextlib.contextmanager
def _content(disk: Disk) -> Iterator[tuple[Storage, int]]:
    """Open what a guest sees: a storage, and where in it the disk begins. An overlay that is not there is its base."""
    with _base(disk) as base:
        if not disk.guest or not is_there(disk.file):
            if disk.guest:
                note(f"{disk.label} is not there yet: it is as its base")
            yield base.storage, base.offset
            return
        require_free(disk.file, disk.label)
        overlay = OverlayFolder(disk.spec.overlays).open(disk.unit, base)
        try:
            yield overlay, 0
        finally:
            with in_words("cannot be synced", str(disk.file)):
                overlay.close()


def _let_go(old: FileStorage) -> None:
    """Close what was open for its lock; a sync that fails is nothing to us, who have not written to it."""
    with contextlib.suppress(OSError):
        old.close()


@contextlib.contextmanager
def _if_made_meanwhile(disk: Disk) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise LocalError("somebody else has just made it", f"{disk.label} ({disk.file})") from None


def _import_extent(disk: Disk, source: Source, length: int) -> None:
    """Replace the image by one that differs in this extent."""
    image = disk.spec.image.resolve()
    if disk.overlays:
        what = f"overlays lie over it: {', '.join(disk.overlays)}"
        fix = f"export what is to stay, then iovirt disk rm {disk.spec.name}/{disk.overlays[0]}"
        raise LocalError(what, disk.label, fix)
    if is_there(image) and not image.is_file():
        raise LocalError("is a device, which cannot be replaced at once", str(image), "write to it with dd(1)")
    with contextlib.ExitStack() as stack:
        old: FileStorage | None = None
        if is_there(image):
            require_free(image, disk.spec.name)
            old = FileStorage(image, disk.spec.size_bytes)
            stack.callback(_let_go, old)
        else:
            with in_words("cannot be made", str(image.parent)):
                image.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_if_made_meanwhile(disk))
        size_bytes = disk.spec.size_bytes if old is None else old.size_bytes
        fd = stack.enter_context(replacing(image, size_bytes, absent=old is None))
        if old is not None:
            with contextlib.closing(open_source(image)) as before:
                extent = (disk.extent.offset_bytes, disk.extent.end_bytes)
                copy_around(Source(before.fileno(), image), fd, extent, size_bytes, f"keep the rest of {image.name}")
        copy_file(source, length, fd, disk.extent.offset_bytes, f"import {disk.label}")


def _import_overlay(disk: Disk, source: Source, length: int) -> None:
    """Replace the overlay by one in which only what differs from the base is its own."""
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(_base(disk))
        replace = is_there(disk.file)
        if replace:
            require_free(disk.file, disk.label)
            old = FileStorage(disk.file)
            stack.callback(_let_go, old)
        stack.enter_context(_if_made_meanwhile(disk))
        folder = OverlayFolder(disk.spec.overlays)
        overlay = stack.enter_context(folder.making(disk.unit, base, replace=replace))
        with copying(disk.extent.size_bytes, f"import {disk.label}") as advance:
            for start in range(0, disk.extent.size_bytes, STEP_BYTES):
                step = min(STEP_BYTES, disk.extent.size_bytes - start)
                there = min(max(length - start, 0), step)
                data = source.read(start, there) + bytes(step - there)
                with in_words("cannot be read", base.path):
                    below = base.storage.read_at(base.offset + start, step)
                _put_changes(overlay, start, memoryview(data), memoryview(below))
                advance(step)


def _put_changes(overlay: Overlay, offset: int, data: memoryview, base: memoryview) -> None:
    """Write or discard the clusters of `data` that differ from the base's."""
    if data == base:
        return
    for start, end, same in runs_of(len(data), lambda start, end: data[start:end] == base[start:end]):
        if same:
            continue
        for first, stop, zero in zero_runs(data[start:end]):
            if zero:
                overlay.discard(offset + start + first, stop - first)
            else:
                overlay.write_at(offset + start + first, data[start + first : start + stop])
