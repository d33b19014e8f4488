"""A storage in memory that a test can tear, fail and cut.

It models what an operating system does to a disk behind a page cache. A write changes the cache. Until a sync that
began after it has succeeded, each 512-byte sector of it may or may not have reached the medium, and so may any earlier
unsynced content of that sector: the kernel writes back when it likes. Sectors are atomic, longer writes are not.
A failed sync marks the sectors clean without having written them all: no later sync covers them, until they are
written again. `crash_states` gives the images that a power cut could leave.

Test double; not for data that anybody wants to keep.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from iovirt_dist.wire.codec import Buffer

SECTOR_BYTES: Final = 512

Kind = Literal["read", "write", "discard", "zero", "sync"]


class LogEntry(NamedTuple):
    """One call that reached the storage.

    Attributes:
        kind: What was asked.
        offset: Bytes from the start; 0 for sync.
        length: Bytes; 0 for sync.
        error: errno value that was raised, 0 for success.
    """

    kind: Kind
    offset: int = 0
    length: int = 0
    error: int = 0


class _Version(NamedTuple):
    """Unsynced content of one sector.

    Attributes:
        clock: When it was written, as a count of changes.
        data: 512 bytes.
    """

    clock: int
    data: bytes


@dataclass(slots=True)
class _Failure:
    """The `remaining`-th call from now of a kind fails."""

    remaining: int
    error: int
    done_bytes: int


@dataclass(slots=True)
class _Sector:
    """What is on its way to the medium for one sector.

    Attributes:
        versions: Unsynced contents, oldest first; the last one is what reads see.
        clean_until: Versions up to this clock were covered by a failed sync: later syncs do not write them.
    """

    versions: list[_Version] = field(default_factory=list)
    clean_until: int = 0


class MemoryStorage:
    """A medium in memory.

    Args:
        size_bytes: Its size, a positive multiple of 512.
        content: What is on it, stable, `size_bytes` bytes; zeroes if None.
    """

    def __init__(self, size_bytes: int, content: bytes | None = None) -> None:
        self.size_bytes = size_bytes
        self.log: list[LogEntry] = []
        """Every call but reads, in order."""
        self.cold: set[int] = set()
        """Sector numbers that `read_cached` does not have."""
        self._cache = bytearray(size_bytes if content is None else content)
        self._stable = bytearray(self._cache)
        self._sectors: dict[int, _Sector] = {}
        self._clock = 0
        self._failures: dict[Kind, _Failure] = {}
        self._calls_left: int | None = None

    def fail(self, kind: Kind, nth: int = 1, error: int = errno.EIO, done_bytes: int = 0) -> None:
        """Make a call fail.

        Args:
            kind: Which calls are counted.
            nth: 1 for the next one.
            error: errno value that it raises, e.g. EIO or ENOSPC.
            done_bytes: How much of what a call changes happens before it fails: a torn write.
        """
        self._failures[kind] = _Failure(nth, error, done_bytes)

    def cut(self, after: int = 0) -> None:
        """Cut the power, or end the process that uses it: every later call raises EIO.

        Args:
            after: So many calls that are no reads still succeed.
        """
        self._calls_left = after

    def restart(self) -> None:
        """Let another process use the storage: what the cache holds is there, calls succeed again."""
        self._calls_left = None

    @property
    def is_cut(self) -> bool:
        """Whether every call fails."""
        return self._calls_left == 0

    def read_at(self, offset: int, length: int) -> Buffer:
        """Return what the cache holds."""
        self._attempt("read", offset, length)
        return bytes(self._cache[offset : offset + length])

    def read_cached(self, offset: int, into: memoryview) -> bool:
        """Fill the buffer with what the cache holds, unless any sector is `cold`."""
        first, last = offset // SECTOR_BYTES, (offset + len(into) - 1) // SECTOR_BYTES
        if self.cold and not self.cold.isdisjoint(range(first, last + 1)):
            return False
        into[:] = self.read_at(offset, len(into))
        return True

    def write_at(self, offset: int, data: Buffer) -> None:
        """Change the cache."""
        failure = self._attempt("write", offset, len(data))
        self._change(offset, bytes(data) if failure is None else bytes(data[: failure.done_bytes]))
        _raise(failure)

    def write_cached(self, offset: int, data: Buffer) -> bool:
        """Change the cache, which takes any write without waiting."""
        self.write_at(offset, data)
        return True

    def discard(self, offset: int, length: int) -> None:
        """Change the cache to zeroes."""
        self._clear("discard", offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Change the cache to zeroes."""
        self._clear("zero", offset, length)

    def _clear(self, kind: Kind, offset: int, length: int) -> None:
        failure = self._attempt(kind, offset, length)
        self._change(offset, bytes(length if failure is None else min(length, failure.done_bytes)))
        _raise(failure)

    def sync(self) -> None:
        """Make everything stable that was taken before."""
        self.end_sync(self.begin_sync())

    def begin_sync(self) -> int:
        """Begin a sync that `end_sync` ends, with writes in between; returns its mark."""
        return self._clock

    def end_sync(self, mark: int) -> None:
        """End a sync: what was taken before its mark is stable, or, if it fails, clean and of unknown fate."""
        if self.is_cut:
            _raise(_Failure(0, errno.EIO, 0))  # it has not begun
        failure = self._attempt("sync")
        for number, sector in list(self._sectors.items()):
            if failure is not None:
                sector.clean_until = max(sector.clean_until, min(mark, sector.versions[-1].clock))
            else:
                self._settle(number, sector, mark)
        _raise(failure)

    def close(self) -> None:
        """Sync, then fail every later call."""
        if not self.is_cut:
            self.sync()
        self.cut()

    @property
    def stable(self) -> bytes:
        """The image with everything that was synced and nothing else."""
        return bytes(self._stable)

    def crash_states(self, limit: int = 64, seed: int = 0) -> Iterator[bytes]:
        """Give images that a power cut now could leave.

        Args:
            limit: Most images. All of them if there are no more; else the two extremes and samples.
            seed: Of the samples.
        """
        numbers = sorted(self._sectors)
        choices = [range(len(self._sectors[number].versions) + 1) for number in numbers]
        if math.prod(len(choice) for choice in choices) <= limit:
            for picks in itertools.product(*choices):
                yield self._image(numbers, picks)
            return
        yield self._image(numbers, [0] * len(numbers))
        yield self._image(numbers, [len(choice) - 1 for choice in choices])
        generator = random.Random(seed)  # noqa: S311 - reproducible samples, not secrets
        for _ in range(limit - 2):
            yield self._image(numbers, [generator.choice(choice) for choice in choices])

    def _image(self, numbers: list[int], picks: tuple[int, ...] | list[int]) -> bytes:
        """Return the stable image with one of the contents of each unsynced sector: 0 none, else the n-th version."""
        image = bytearray(self._stable)
        for number, pick in zip(numbers, picks, strict=True):
            if pick:
                start = number * SECTOR_BYTES
                image[start : start + SECTOR_BYTES] = self._sectors[number].versions[pick - 1].data
        return bytes(image)

    def _attempt(self, kind: Kind, offset: int = 0, length: int = 0) -> _Failure | None:
        """Log a call; return the failure that was ordered for it. Reads fail here."""
        failure = self._failures.get(kind)
        if self._calls_left == 0:
            failure = _Failure(0, errno.EIO, 0)
        elif failure is not None:
            failure.remaining -= 1
            if failure.remaining:
                failure = None
            else:
                del self._failures[kind]
        if kind == "read":
            _raise(failure)
        else:
            if self._calls_left:
                self._calls_left -= 1
            self.log.append(LogEntry(kind, offset, length, 0 if failure is None else failure.error))
        return failure

    def _change(self, offset: int, data: bytes) -> None:
        """Put data into the cache, and a new version of each sector that it touches."""
        if not data:
            return
        self._clock += 1
        self._cache[offset : offset + len(data)] = data
        for number in range(offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES + 1):
            start = number * SECTOR_BYTES
            content = bytes(self._cache[start : start + SECTOR_BYTES])
            self._sectors.setdefault(number, _Sector()).versions.append(_Version(self._clock, content))

    def _settle(self, number: int, sector: _Sector, mark: int) -> None:
        """Make the newest version up to `mark` stable, unless the cache holds it for clean."""
        covered = [version for version in sector.versions if version.clock <= mark]
        if not covered or covered[-1].clock <= sector.clean_until:
            return
        start = number * SECTOR_BYTES
        self._stable[start : start + SECTOR_BYTES] = covered[-1].data
        del sector.versions[: len(covered)]
        if not sector.versions:
            del self._sectors[number]


def _raise(failure: _Failure | None) -> None:
    if failure is not None:
        raise OSError(failure.error, os.strerror(failure.error))
