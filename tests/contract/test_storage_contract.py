"""What every block storage must do, whatever is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder
from iovirt_dist.controllers.block.overlay_format import Layout
from iovirt_dist.controllers.block.storage import FileStorage, Storage
from iovirt_dist.controllers.block.unit_storage import UnitStorage
from iovirt_dist.testing.storage import MemoryStorage

SIZE_BYTES = 64 * 1024


def _overlay(folder: Path) -> Storage:
    """An overlay over zeroes, in a file."""
    base = MemoryStorage(SIZE_BYTES)
    return OverlayFolder(folder).open("all@guest", Base(base, 0, SIZE_BYTES, "base.img"))


def _memory_overlay() -> Storage:
    """An overlay over zeroes, in memory."""
    file = MemoryStorage(Layout(SIZE_BYTES).file_bytes)
    return Overlay(file, MemoryStorage(SIZE_BYTES), 0, SIZE_BYTES, bytes(16))


def _image_of_units(folder: Path) -> Storage:
    """An image of which nobody has opened an overlay."""

    def refuse(unit: str, start: int, length: int) -> Overlay:
        raise AssertionError("nobody asks for an overlay")

    return UnitStorage(FileStorage(folder / "units.img", SIZE_BYTES), refuse)


@pytest.fixture(params=["file", "memory", "overlay", "memory overlay", "units"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A new storage of 64 KiB."""
    makers: dict[str, Callable[[], Storage]] = {
        "file": lambda: FileStorage(tmp_path / "disk.img", SIZE_BYTES),
        "memory": lambda: MemoryStorage(SIZE_BYTES),
        "overlay": lambda: _overlay(tmp_path),
        "memory overlay": _memory_overlay,
        "units": lambda: _image_of_units(tmp_path),
    }
    made = makers[request.param]()
    yield made
    made.close()


def test_storage_is_one_of_the_protocol(storage: Storage) -> None:
    """The protocol's methods and attributes are all there."""
    assert isinstance(storage, Storage)


def test_new_storage_reads_as_zeroes_over_its_whole_size(storage: Storage) -> None:
    """A new medium has the size asked for and holds zeroes."""
    assert storage.size_bytes == SIZE_BYTES
    assert bytes(storage.read_at(0, SIZE_BYTES)) == bytes(SIZE_BYTES)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_write_is_seen_by_later_reads(storage: Storage, wrap: type) -> None:
    """Data written from any kind of buffer comes back, its neighbours untouched."""
    storage.write_at(1024, wrap(b"ab" * 512))

    assert bytes(storage.read_at(512, 2048)) == bytes(512) + b"ab" * 512 + bytes(512)


def test_write_of_the_last_bytes_reaches_the_end(storage: Storage) -> None:
    """The last sector is a sector like any other."""
    storage.write_at(SIZE_BYTES - 512, b"z" * 512)

    assert bytes(storage.read_at(SIZE_BYTES - 1024, 1024)) == bytes(512) + b"z" * 512


def test_read_cached_after_write_gives_the_data(storage: Storage) -> None:
    """What was just written needs no waiting."""
    storage.write_at(4096, b"c" * 4096)

    buffer = bytearray(4096)
    filled = storage.read_cached(4096, memoryview(buffer))

    assert filled
    assert buffer == b"c" * 4096


def test_write_cached_after_write_is_seen_by_later_reads(storage: Storage) -> None:
    """What was just written can be written again without waiting, even in part."""
    storage.write_at(4096, b"c" * 4096)

    taken = storage.write_cached(4608, b"d" * 512)

    assert taken
    assert bytes(storage.read_at(4096, 4096)) == b"c" * 512 + b"d" * 512 + b"c" * 3072


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (512, 512), (4096 - 512, 1024), (0, SIZE_BYTES)])
@pytest.mark.parametrize("clear", ["discard", "write_zeroes"])
def test_cleared_range_reads_as_zeroes_and_leaves_neighbours(
    storage: Storage, clear: str, offset: int, length: int
) -> None:
    """Aligned to pages or not, and nothing else is zero."""
    storage.write_at(0, b"x" * SIZE_BYTES)

    getattr(storage, clear)(offset, length)

    expected = b"x" * offset + bytes(length) + b"x" * (SIZE_BYTES - offset - length)
    assert bytes(storage.read_at(0, SIZE_BYTES)) == expected


def test_sync_after_writes_and_without_any_succeeds(storage: Storage) -> None:
    """Sync may be called at any time and keeps the data."""
    storage.sync()
    storage.write_at(0, b"s" * 512)
    storage.sync()

    assert bytes(storage.read_at(0, 512)) == b"s" * 512


def test_storage_after_close_raises_oserror(storage: Storage) -> None:
    """A closed storage fails as a medium does, and closing twice is harmless."""
    storage.close()

    with pytest.raises(OSError, match=r"."):
        storage.write_at(0, bytes(512))
    with pytest.raises(OSError, match=r"."):
        storage.sync()
    storage.close()
