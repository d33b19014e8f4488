"""The crash model of the storage in memory."""

from __future__ import annotations

import errno

import pytest

from iovirt_dist.testing.storage import LogEntry, MemoryStorage

A, B, C = b"a" * 512, b"b" * 512, b"c" * 512
ZERO = bytes(512)


def test_unsynced_write_may_or_may_not_survive() -> None:
    """Both images are possible."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)

    assert set(storage.crash_states()) == {ZERO, A}


def test_synced_write_survives() -> None:
    """One image is possible."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    storage.sync()

    assert list(storage.crash_states()) == [A]
    assert storage.stable == A


def test_unsynced_write_of_two_sectors_may_be_torn() -> None:
    """Each sector survives or not by itself."""
    storage = MemoryStorage(1024)
    storage.write_at(0, A + B)

    assert set(storage.crash_states()) == {ZERO + ZERO, A + ZERO, ZERO + B, A + B}


def test_every_unsynced_content_of_a_sector_is_possible() -> None:
    """The kernel may have written back an earlier content and not the last."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    storage.write_at(0, B)

    assert set(storage.crash_states()) == {ZERO, A, B}


def test_write_during_a_sync_is_not_covered_by_it() -> None:
    """Only what was taken before the sync began is stable."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    mark = storage.begin_sync()
    storage.write_at(0, B)
    storage.end_sync(mark)

    assert set(storage.crash_states()) == {A, B}


def test_sync_after_a_failed_sync_does_not_cover_what_that_one_lost() -> None:
    """Pages were marked clean: the second sync succeeds and proves nothing."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    storage.fail("sync")
    with pytest.raises(OSError, match="Input/output"):
        storage.sync()

    storage.sync()

    assert set(storage.crash_states()) == {ZERO, A}
    storage.write_at(0, B)
    storage.sync()
    assert list(storage.crash_states()) == [B]


def test_discard_is_a_change_like_a_write_of_zeroes() -> None:
    """Until a sync the old content may be back."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    storage.sync()
    storage.discard(0, 512)

    assert set(storage.crash_states()) == {ZERO, A}


def test_failing_write_may_be_torn_at_any_byte() -> None:
    """What was done before the failure is in the cache and may survive."""
    storage = MemoryStorage(512)
    storage.fail("write", nth=2, error=errno.ENOSPC, done_bytes=100)
    storage.write_at(0, A)

    with pytest.raises(OSError, match="No space") as caught:
        storage.write_at(0, B)

    assert caught.value.errno == errno.ENOSPC
    assert storage.read_at(0, 512) == B[:100] + A[100:]
    storage.write_at(0, C)
    assert storage.log == [
        LogEntry("write", 0, 512),
        LogEntry("write", 0, 512, errno.ENOSPC),
        LogEntry("write", 0, 512),
    ]


def test_cut_storage_fails_every_call_and_keeps_its_crash_states() -> None:
    """After the cut nothing is taken any more."""
    storage = MemoryStorage(512)
    storage.write_at(0, A)
    storage.cut()

    with pytest.raises(OSError, match="Input/output"):
        storage.write_at(0, B)
    with pytest.raises(OSError, match="Input/output"):
        storage.read_at(0, 512)
    storage.close()
    assert set(storage.crash_states()) == {ZERO, A}


def test_crash_states_beyond_the_limit_are_sampled_with_both_extremes() -> None:
    """A large state space is sampled, the same for the same seed."""
    storage = MemoryStorage(512 * 20)
    storage.write_at(0, A * 20)

    states = list(storage.crash_states(limit=10, seed=1))

    assert states[0] == bytes(512 * 20)
    assert states[1] == A * 20
    assert len(states) == 10
    assert states == list(storage.crash_states(limit=10, seed=1))
    assert states != list(storage.crash_states(limit=10, seed=2))


def test_cold_sectors_are_not_cached_but_readable() -> None:
    """A test says what the page cache does not hold."""
    storage = MemoryStorage(2048)
    storage.cold = {1}

    buffer = bytearray(b"x" * 1024)
    assert not storage.read_cached(0, memoryview(buffer))
    assert storage.read_cached(1024, memoryview(buffer))
    assert buffer == bytes(1024)
    assert storage.read_at(512, 512) == ZERO
