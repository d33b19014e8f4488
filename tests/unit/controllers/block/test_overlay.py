"""What an overlay asks of its file and its base; that its content is right is `tests/properties/test_overlay.py`."""

from __future__ import annotations

import threading

import pytest

from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_format import Layout
from iovirt_dist.testing.storage import LogEntry, MemoryStorage
from iovirt_dist.wire.codec import Buffer

SIZE = 16 * 4096
DATA = Layout(SIZE).data_offset
RECENT = Layout(SIZE).recent_map_offset
LIFE = b"l" * 16


class _Counted(MemoryStorage):
    """Counts reads."""

    reads = 0

    def read_at(self, offset: int, length: int) -> Buffer:
        """Count and read."""
        self.reads += 1
        return super().read_at(offset, length)


def _overlay(base: MemoryStorage | None = None) -> tuple[Overlay, _Counted, MemoryStorage]:
    """An overlay over a base of the letter b, synced, with its log empty."""
    file = _Counted(Layout(SIZE).file_bytes)
    below = base if base is not None else MemoryStorage(SIZE, b"b" * SIZE)
    overlay = Overlay(file, below, 0, SIZE, LIFE)
    overlay.sync()
    file.log.clear()
    file.reads = 0
    return overlay, file, below


def test_write_of_whole_clusters_reads_nothing_and_writes_data_then_map() -> None:
    """One write of data, one byte of map."""
    base = _Counted(SIZE)
    overlay, file, _ = _overlay(base)

    overlay.write_at(4096, bytes(8192))

    assert (file.log, base.reads) == ([LogEntry("write", DATA + 4096, 8192), LogEntry("write", RECENT, 1)], 0)


def test_second_write_to_a_cluster_is_one_call() -> None:
    """It is the overlay's already, whole or in part."""
    overlay, file, _ = _overlay()
    overlay.write_at(4096, bytes(4096))
    file.log.clear()

    overlay.write_at(4608, bytes(512))

    assert file.log == [LogEntry("write", DATA + 4608, 512)]


def test_write_of_parts_is_filled_to_whole_clusters_in_one_call() -> None:
    """Both ends come from the base."""
    overlay, file, _ = _overlay()

    overlay.write_at(4608, b"w" * 8192)

    assert file.log[0] == LogEntry("write", DATA + 4096, 12288)
    assert bytes(file.read_at(DATA + 4096, 12288)) == b"b" * 512 + b"w" * 8192 + b"b" * 3584


def test_sync_writes_the_map_between_two_syncs_and_only_if_it_changed() -> None:
    """The second time only data is new."""
    overlay, file, _ = _overlay()
    overlay.write_at(0, bytes(4096))
    file.log.clear()

    overlay.sync()
    overlay.write_at(0, bytes(4096))
    overlay.sync()

    first = [LogEntry("sync"), LogEntry("write", 8192, 4096), LogEntry("sync")]
    assert file.log == [*first, LogEntry("write", DATA, 4096), LogEntry("sync")]


def test_unsynced_tells_whether_a_sync_has_anything_to_do() -> None:
    """Not for reads."""
    overlay, _, _ = _overlay()
    overlay.read_at(0, 4096)

    before = overlay.unsynced
    overlay.discard(0, 4096)
    after = overlay.unsynced
    overlay.sync()

    assert (before, after, overlay.unsynced) == (False, True, False)


def test_reopened_in_the_same_boot_has_something_to_sync() -> None:
    """A former life of the process may not have synced what it wrote."""
    overlay, file, base = _overlay()
    overlay.write_at(0, bytes(4096))

    again = Overlay(file, base, 0, SIZE, LIFE)

    assert again.unsynced
    assert again.own_bytes == 4096


def test_read_across_runs_makes_one_call_for_each() -> None:
    """Base, overlay, base."""
    overlay, file, base = _overlay(_Counted(SIZE, b"b" * SIZE))
    overlay.write_at(8192, b"w" * 8192)

    content = overlay.read_at(0, SIZE)

    assert bytes(content) == b"b" * 8192 + b"w" * 8192 + b"b" * (SIZE - 16384)
    assert (file.reads, base.reads) == (1, 2)  # type: ignore[attr-defined]  # it is a _Counted


def test_write_cached_over_a_cold_base_changes_nothing() -> None:
    """It would have to wait; whole clusters need not."""
    base = MemoryStorage(SIZE, b"b" * SIZE)
    overlay, file, _ = _overlay(base)
    base.cold = {0}

    part = overlay.write_cached(512, b"w" * 512)
    log = list(file.log)
    whole = overlay.write_cached(0, b"w" * 4096)

    assert (part, log, whole) == (False, [], True)
    assert bytes(overlay.read_at(0, 4096)) == b"w" * 4096


def test_discard_of_whole_clusters_makes_a_hole_and_reads_nothing() -> None:
    """The base is hidden behind it."""
    overlay, file, _ = _overlay()

    overlay.discard(4096, 8192)

    assert file.log == [LogEntry("discard", DATA + 4096, 8192), LogEntry("write", RECENT, 1)]
    assert bytes(overlay.read_at(0, 16384)) == b"b" * 4096 + bytes(8192) + b"b" * 4096


def test_failed_sync_is_never_repeated() -> None:
    """Not even by closing: a second one would claim what the first could not."""
    overlay, file, _ = _overlay()
    overlay.write_at(0, bytes(4096))
    file.fail("sync")

    with pytest.raises(OSError, match="error"):
        overlay.sync()
    file.log.clear()
    with pytest.raises(OSError, match="earlier sync failed"):
        overlay.sync()
    overlay.close()

    assert [entry for entry in file.log if entry.kind == "write"] == []


def test_writes_to_one_cluster_from_two_threads_are_both_there() -> None:
    """Neither fills over what the other has written."""
    overlay, _, _ = _overlay()
    start = threading.Barrier(2)

    def write(sectors: range, letter: bytes) -> None:
        start.wait()
        for sector in sectors:
            overlay.write_at(sector * 512, letter * 512)

    threads = [
        threading.Thread(target=write, args=(range(first, SIZE // 512, 2), letter))
        for first, letter in ((0, b"x"), (1, b"y"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bytes(overlay.read_at(0, SIZE)) == (b"x" * 512 + b"y" * 512) * (SIZE // 1024)
