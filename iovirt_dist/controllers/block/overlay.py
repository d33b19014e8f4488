"""A copy-on-write overlay as a storage: what is written goes to a file of its own, everything else is the base's.

Theory of operation. A write that leaves part of a cluster untouched takes that part from the base, so that a cluster
as a whole is the overlay's or the base's. Data is written first, then the recent map, then the map in memory; `sync`
takes the changed blocks of the map, makes all data stable, writes the blocks to the stable map and makes them stable.
Bits that are set while a sync runs are the next one's. The file's layout is told in `overlay_format`.

A failed sync leaves the fate of the data unknown, and a later one would succeed without it. So it is never repeated,
the stable map is not written any more, and the recent one is made void: the next life begins where the last good sync
ended.

Threads. Whoever fills a cluster from the base holds the fill lock meanwhile, as two accesses may share a cluster
without sharing a byte; the map lock is held for moments only. Bits are only ever set, so that reading needs no lock:
a reader that finds a bit unset reads sectors that nobody writes, which are as in the base.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Final

from iovirt_dist.controllers.block.cluster_map import CLUSTER_BITS, CLUSTER_BYTES, ClusterMap
from iovirt_dist.controllers.block.overlay_format import (
    LIFE_BYTES,
    LIFE_OFFSET,
    NO_LIFE,
    STABLE_MAP_OFFSET,
    Layout,
)
from iovirt_dist.controllers.block.storage import Storage
from iovirt_dist.wire.codec import Buffer

_CLUSTER_MASK: Final = CLUSTER_BYTES - 1
_ZEROES: Final = bytes(CLUSTER_BYTES)


class Overlay:
    """The disk that a base and an overlay's file make together.

    Args:
        file: The overlay's file, at least `Layout.file_bytes` long, its header checked; the overlay closes it.
        base: Holds the base; others use it too, and nobody writes to this part of it.
        base_offset: Where the base begins.
        size_bytes: Length of the disk, a positive multiple of 512.
        life: This boot of the machine, 16 bytes; `NO_LIFE` if that is unknown.

    Raises:
        OSError: The maps cannot be read or written.
    """

    def __init__(self, file: Storage, base: Storage, base_offset: int, size_bytes: int, life: bytes) -> None:
        self.size_bytes = size_bytes
        layout = Layout(size_bytes)
        self._file = file
        self._base = base
        self._base_offset = base_offset
        self._data_offset = layout.data_offset
        self._recent_map_offset = layout.recent_map_offset
        self._fill_lock = threading.Lock()
        self._map_lock = threading.Lock()
        self._written = False
        self._failed = False
        self._map = self._load(layout, life)
        self._bits = self._map.bits

    @property
    def unsynced(self) -> bool:
        """Whether something was taken that no sync has covered yet."""
        return self._written or self._map.changed

    @property
    def own_bytes(self) -> int:
        """Bytes of the disk that are the overlay's, in whole clusters."""
        return self._map.own * CLUSTER_BYTES

    def read_at(self, offset: int, length: int) -> Buffer:
        """Read each run of clusters from where it is."""
        parts = [
            self._file.read_at(self._data_offset + start, end - start)
            if own
            else self._base.read_at(self._base_offset + start, end - start)
            for start, end, own in self._runs(offset, offset + length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_cached(self, offset: int, into: memoryview) -> bool:
        """Read each run of clusters from where it is, if all of them need no waiting."""
        first, last = offset >> CLUSTER_BITS, offset + len(into) - 1 >> CLUSTER_BITS
        if first == last:
            if self._bits[first >> 3] >> (first & 7) & 1:
                return self._file.read_cached(self._data_offset + offset, into)
            return self._base.read_cached(self._base_offset + offset, into)
        for start, end, own in self._runs(offset, offset + len(into)):
            part = into[start - offset : end - offset]
            source, at = (self._file, self._data_offset) if own else (self._base, self._base_offset)
            if not source.read_cached(at + start, part):
                return False
        return True

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write to the overlay's file, filled up to whole clusters from the base."""
        self._write(offset, data, wait=True)

    def write_cached(self, offset: int, data: Buffer) -> bool:
        """Write unless the base would have to be waited for."""
        return self._write(offset, data, wait=False)

    def discard(self, offset: int, length: int) -> None:
        """Hide the base: whole clusters become holes, parts of others are written with zeroes."""
        self._clear(self._file.discard, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Hide the base behind zeroes that have their space in the overlay's file."""
        self._clear(self._file.write_zeroes, offset, length)

    def _clear(self, clear: Callable[[int, int], None], offset: int, length: int) -> None:
        """Clear whole clusters in the file by `clear`, parts of others by writing."""
        end = offset + length
        head_end = min(end, -(-offset // CLUSTER_BYTES) * CLUSTER_BYTES)
        # what is behind the disk's end in its last cluster means nothing
        tail = end if end == self.size_bytes else max(head_end, end - (end & _CLUSTER_MASK))
        for start, stop in ((offset, head_end), (tail, end)):
            if start < stop:
                self._write(start, memoryview(_ZEROES)[: stop - start], wait=True)
        if head_end < tail:
            try:
                clear(self._data_offset + head_end, tail - head_end)
                self._take(head_end >> CLUSTER_BITS, tail - 1 >> CLUSTER_BITS)
            finally:
                self._written = True

    def sync(self) -> None:
        """Make data stable, then the map that leads to it."""
        if self._failed:
            raise OSError(errno.EIO, "an earlier sync failed")
        with self._map_lock:
            self._written = False
            blocks = self._map.take_changed()
        try:
            self._file.sync()
            for start, content in blocks:
                self._file.write_at(STABLE_MAP_OFFSET + start, content)
            if blocks:
                self._file.sync()
        except OSError:
            self._give_up()
            raise

    def close(self) -> None:
        """Sync unless that failed before, and close the file."""
        try:
            if self.unsynced and not self._failed:
                self.sync()
        finally:
            self._file.close()

    def _load(self, layout: Layout, life: bytes) -> ClusterMap:
        """Read the map that counts; begin a recent one for this life."""
        stable = bytes(self._file.read_at(STABLE_MAP_OFFSET, layout.map_bytes))
        if life != NO_LIFE and bytes(self._file.read_at(LIFE_OFFSET, LIFE_BYTES)) == life:
            # what an earlier life of the process wrote may not be stable yet
            self._written = True
            clusters = ClusterMap(layout.clusters, bytes(self._file.read_at(self._recent_map_offset, layout.map_bytes)))
            clusters.mark_changes(stable)
            return clusters
        self._file.write_at(self._recent_map_offset, stable)
        self._file.write_at(LIFE_OFFSET, life)
        return ClusterMap(layout.clusters, stable)

    def _write(self, offset: int, data: Buffer, *, wait: bool) -> bool:
        """Take data; returns False, with nothing changed, if that needs waiting and must not."""
        end = offset + len(data)
        first, last = offset >> CLUSTER_BITS, end - 1 >> CLUSTER_BITS
        whole = not offset & _CLUSTER_MASK and (not end & _CLUSTER_MASK or end == self.size_bytes)
        try:
            if whole or self._map.all_own(first, last):
                self._file.write_at(self._data_offset + offset, data)
                if whole:
                    self._take(first, last)
                return True
            if not self._fill_lock.acquire(blocking=wait):
                return False
            try:
                return self._write_filled(offset, data, wait=wait)
            finally:
                self._fill_lock.release()
        finally:
            self._written = True

    def _write_filled(self, offset: int, data: Buffer, *, wait: bool) -> bool:
        """Write whole clusters, the parts at both ends from where they are now."""
        end = offset + len(data)
        first, last = offset >> CLUSTER_BITS, end - 1 >> CLUSTER_BITS
        head = self._fill(first, first << CLUSTER_BITS, offset, wait=wait)
        tail = self._fill(last, end, min(last + 1 << CLUSTER_BITS, self.size_bytes), wait=wait)
        if head is None or tail is None:
            return False
        self._file.write_at(self._data_offset + offset - len(head), b"".join((head, data, tail)))
        self._take(first, last)
        return True

    def _fill(self, cluster: int, start: int, end: int, *, wait: bool) -> Buffer | None:
        """Return the base's bytes that a cluster needs, none if it is the overlay's; None if they are not at hand."""
        if start >= end or self._map.all_own(cluster, cluster):
            return b""
        if wait:
            return self._base.read_at(self._base_offset + start, end - start)
        filled = bytearray(end - start)
        return filled if self._base.read_cached(self._base_offset + start, memoryview(filled)) else None

    def _take(self, first: int, last: int) -> None:
        """Note that clusters are the overlay's; their data is in the file."""
        if self._map.all_own(first, last):
            return
        with self._map_lock:
            start, content = self._map.with_range(first, last)
            place = self._recent_map_offset + start
            try:
                self._file.write_at(place, content)
            except OSError:
                with contextlib.suppress(
                    OSError
                ):  # it may be there in part: a later life must not see more than this one
                    self._file.write_at(place, self._map.bits[start : start + len(content)])
                raise
            self._map.apply(start, content)

    def _runs(self, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Give the runs of a range in bytes: first byte, byte behind the last, whether they are the overlay's."""
        for run in self._map.runs(offset >> CLUSTER_BITS, end - 1 >> CLUSTER_BITS):
            yield max(run.first << CLUSTER_BITS, offset), min(run.end << CLUSTER_BITS, end), run.own

    def _give_up(self) -> None:
        """Nothing is stable any more that is not now: the recent map would claim that it is."""
        self._failed = True
        with contextlib.suppress(OSError):
            self._file.write_at(LIFE_OFFSET, NO_LIFE)
