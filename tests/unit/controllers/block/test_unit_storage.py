"""An image and overlays as one linear storage."""

from __future__ import annotations

import pytest

from iovirt_dist.controllers.block.extents import SLOT_BITS
from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_format import Layout
from iovirt_dist.controllers.block.unit_storage import UnitStorage
from iovirt_dist.testing.storage import LogEntry, MemoryStorage

SIZE = 4 * 4096
SECOND = 2 << SLOT_BITS


class _Units:
    """An image with the overlays a and b over all of it, in slots 1 and 2."""

    def __init__(self) -> None:
        self.image = MemoryStorage(SIZE, b"i" * SIZE)
        self.files = {name: MemoryStorage(Layout(SIZE).file_bytes) for name in ("a", "b")}
        self.storage = UnitStorage(self.image, self._open)
        for slot, name in enumerate(self.files, 1):
            self.storage.open(name, slot, 0, SIZE)
        self.storage.sync()
        for medium in (self.image, *self.files.values()):
            medium.log.clear()

    def _open(self, unit: str, start: int, length: int) -> Overlay:
        return Overlay(self.files[unit], self.image, start, length, bytes(16))

    def syncs(self) -> dict[str, int]:
        """How often each file was synced."""
        media = {"image": self.image, **self.files}
        return {name: medium.log.count(LogEntry("sync")) for name, medium in media.items()}


def test_accesses_reach_the_overlay_of_their_slot() -> None:
    """Image and the other overlay are as they were."""
    units = _Units()
    buffer = bytearray(1024)

    units.storage.write_at(SECOND + 512, b"w" * 512)
    cached = units.storage.write_cached(SECOND + 1024, b"x" * 512)
    units.storage.discard(SECOND + 4096, 4096)
    filled = units.storage.read_cached(SECOND, memoryview(buffer))

    assert (cached, filled, bytes(buffer)) == (True, True, b"i" * 512 + b"w" * 512)
    assert bytes(units.storage.read_at(SECOND + 1024, 4096)) == b"x" * 512 + b"i" * 2560 + bytes(1024)
    assert bytes(units.storage.read_at(0, SIZE)) == bytes(units.storage.read_at(1 << SLOT_BITS, SIZE)) == b"i" * SIZE


def test_accesses_of_the_image_reach_the_image() -> None:
    """Slot 0."""
    units = _Units()
    buffer = bytearray(512)

    units.storage.write_at(0, b"w" * 512)
    cached = units.storage.write_cached(512, b"x" * 512)
    units.storage.discard(1024, 512)
    filled = units.storage.read_cached(512, memoryview(buffer))

    assert (cached, filled, bytes(buffer)) == (True, True, b"x" * 512)
    assert bytes(units.image.read_at(0, 2048)) == b"w" * 512 + b"x" * 512 + bytes(512) + b"i" * 512


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([], {"image": 0, "a": 0, "b": 0}),
        ([512], {"image": 1, "a": 0, "b": 0}),
        ([SECOND], {"image": 0, "a": 0, "b": 2}),
        ([0, 1 << SLOT_BITS, SECOND], {"image": 1, "a": 2, "b": 2}),
    ],
)
def test_sync_syncs_what_has_something_new(offsets: list[int], expected: dict[str, int]) -> None:
    """Twice an overlay whose map has changed."""
    units = _Units()
    for offset in offsets:
        units.storage.write_at(offset, bytes(512))

    units.storage.sync()
    units.storage.sync()

    assert units.syncs() == expected


def test_new_storage_syncs_its_image_once() -> None:
    """A former life of the process may have left something."""
    image = MemoryStorage(SIZE)
    storage = UnitStorage(image, lambda *_: pytest.fail("nobody asks for an overlay"))

    storage.sync()
    storage.sync()

    assert image.log == [LogEntry("sync")]


def test_sync_that_fails_in_one_file_still_syncs_the_others_and_fails() -> None:
    """The core hears of it."""
    units = _Units()
    for offset in (0, 1 << SLOT_BITS, SECOND):
        units.storage.write_at(offset, bytes(512))
    units.files["a"].fail("sync")

    with pytest.raises(OSError, match="error"):
        units.storage.sync()

    assert (units.syncs()["image"], units.syncs()["b"]) == (1, 2)


def test_close_closes_all_though_one_fails() -> None:
    """The error is told after that."""
    units = _Units()
    units.storage.write_at(1 << SLOT_BITS, bytes(512))
    units.files["a"].fail("sync")

    with pytest.raises(OSError, match="error"):
        units.storage.close()

    assert [medium.is_cut for medium in (units.image, units.files["b"])] == [True, True]


def test_close_slot_makes_stable_what_was_written() -> None:
    """The overlay is gone from the linear range."""
    units = _Units()
    units.storage.write_at(SECOND, b"w" * 4096)

    units.storage.close_slot(2)

    assert units.files["b"].stable[Layout(SIZE).data_offset :][:4096] == b"w" * 4096
    assert list(units.storage.overlays) == [1]
