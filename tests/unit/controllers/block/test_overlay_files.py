"""Overlays as files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from iovirt_dist.controllers.block.extents import SLOT_BITS
from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder, overlay_path
from iovirt_dist.controllers.block.storage import FileStorage, scratch_path
from iovirt_dist.controllers.block.unit_storage import UnitStorage
from iovirt_dist.errors import ImageError
from iovirt_dist.testing.storage import MemoryStorage

SIZE = 1 << 20
UNIT = "all@guest"


@pytest.fixture
def base() -> Base:
    """A base of the letter b."""
    return Base(MemoryStorage(SIZE, b"b" * SIZE), 0, SIZE, "/images/base.img")


@pytest.fixture
def folder(tmp_path: Path) -> OverlayFolder:
    """A folder that does not exist yet."""
    return OverlayFolder(tmp_path / "overlays")


def test_open_makes_a_sparse_overlay_and_finds_it_again(folder: OverlayFolder, base: Base) -> None:
    """Nothing else is left in the folder."""
    first = folder.open(UNIT, base)
    first.write_at(4096, b"w" * 4096)
    first.close()

    second = folder.open(UNIT, base)
    content = bytes(second.read_at(0, 12288))
    second.close()

    assert content == b"b" * 4096 + b"w" * 4096 + b"b" * 4096
    assert [path.name for path in folder.folder.iterdir()] == ["all@guest.cow"]
    assert overlay_path(folder.folder, UNIT).stat().st_blocks * 512 < SIZE // 4
    assert folder.units() == [UNIT]
    assert folder.header(UNIT).base == "/images/base.img"


def test_open_of_an_overlay_in_use_is_refused(folder: OverlayFolder, base: Base) -> None:
    """It has one owner."""
    overlay = folder.open(UNIT, base)

    with pytest.raises(ImageError, match=f"is in use by process {os.getpid()}"):
        folder.open(UNIT, base)
    overlay.close()


def test_open_over_another_base_is_refused_and_leaves_it_free(folder: OverlayFolder, base: Base) -> None:
    """With a line that names the right one."""
    folder.open(UNIT, base).close()
    other = base._replace(storage=MemoryStorage(SIZE, b"o" * SIZE))

    with pytest.raises(ImageError, match=r"base has changed; it was made over /images/base\.img"):
        folder.open(UNIT, other)
    folder.open(UNIT, base).close()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes are no whole number"), (bytes(512), "is no overlay"), (b"x" * 8192, "is no overlay")],
)
def test_open_of_a_file_that_is_no_overlay_is_refused(
    folder: OverlayFolder, base: Base, content: bytes, message: str
) -> None:
    """Whatever lies there stays as it is."""
    path = overlay_path(folder.folder, UNIT)
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(ImageError, match=message):
        folder.open(UNIT, base)

    assert path.read_bytes() == content


def test_open_of_an_overlay_that_was_cut_short_is_refused(folder: OverlayFolder, base: Base) -> None:
    """Its map may lead behind its end."""
    folder.open(UNIT, base).close()
    os.truncate(overlay_path(folder.folder, UNIT), 16384)

    with pytest.raises(ImageError, match="has been cut short"):
        folder.open(UNIT, base)


def test_making_that_fails_leaves_what_was_there(folder: OverlayFolder, base: Base) -> None:
    """And no scratch file."""
    folder.open(UNIT, base).close()
    before = overlay_path(folder.folder, UNIT).read_bytes()

    with pytest.raises(ImageError, match="No space left"), folder.making(UNIT, base, replace=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert overlay_path(folder.folder, UNIT).read_bytes() == before
    assert [path.name for path in folder.folder.iterdir()] == ["all@guest.cow"]


def test_making_of_what_is_there_already_is_refused(folder: OverlayFolder, base: Base) -> None:
    """Somebody may have written to it."""
    folder.open(UNIT, base).close()

    with pytest.raises(FileExistsError), folder.making(UNIT, base):
        pass


def test_making_removes_what_a_killed_process_left_and_nothing_that_is_made(folder: OverlayFolder, base: Base) -> None:
    """Who makes it now has a lock."""
    path = overlay_path(folder.folder, UNIT)
    path.parent.mkdir()
    left, busy = (scratch_path(path).with_name(f".{path.name}.{pid}.new") for pid in (1, 2))
    left.write_bytes(bytes(512))
    maker = FileStorage(busy, 512)

    folder.open(UNIT, base).close()
    maker.close()

    assert (left.exists(), busy.exists()) == (False, True)


def test_open_of_too_large_a_disk_is_refused(folder: OverlayFolder, base: Base) -> None:
    """Its map would take too much memory."""
    with pytest.raises(ImageError, match="too large for an overlay"):
        folder.open(UNIT, base._replace(size_bytes=(1 << 40) + 512), bytes(32))


def test_remove_takes_away_a_free_overlay_only(folder: OverlayFolder, base: Base) -> None:
    """In use it stays."""
    overlay = folder.open(UNIT, base)
    with pytest.raises(ImageError, match="is in use"):
        folder.remove(UNIT)
    overlay.close()

    folder.remove(UNIT)

    assert folder.units() == []


def test_remove_takes_away_what_is_damaged(folder: OverlayFolder) -> None:
    """Whatever it holds."""
    folder.folder.mkdir()
    overlay_path(folder.folder, UNIT).write_bytes(b"junk")

    folder.remove(UNIT)

    assert folder.units() == []


def test_folder_that_nobody_may_look_into_is_an_error(folder: OverlayFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays may be there, so that their base must not change."""
    folder.folder.mkdir()

    def refuse(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", refuse)

    with pytest.raises(ImageError, match=r"overlays: cannot be used \(Permission denied\)"):
        folder.units()


def test_overlay_over_a_base_that_cannot_be_synced_is_written(
    folder: OverlayFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base on a read-only file system: one failed sync would end all writing of the controller."""
    path = tmp_path / "base.img"
    path.write_bytes(b"b" * SIZE)
    image = FileStorage(path, read_only=True)
    base, inode = Base(image, 0, SIZE, str(path)), path.stat().st_ino
    units = UnitStorage(image, lambda unit, start, length: folder.open(unit, base))
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    units.open(UNIT, 1, 0, SIZE)
    units.write_at(1 << SLOT_BITS, b"w" * 4096)

    units.sync()

    assert not units.overlays[1].unsynced
    units.close()
