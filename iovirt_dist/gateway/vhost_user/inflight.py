"""Requests in flight, kept where they outlive us (section "Inflight I/O tracking"; split rings).

For each queue there is a list of its descriptors: is a request with that head in flight, and when was it taken? The
front end keeps the memory and gives it to the back end that comes next, which then does what the dead one had begun.

A request leaves the list and enters the used ring in two writes, and we may die between them. So a batch is first
linked (`QueueLog.batch`), then the used index is written, then the batch leaves the list (`QueueLog.published`). Who
finds the used index ahead of the list's own copy of it knows that the batch was published, and which it was.

What is in this memory may be anything, since others can write it: it is read with bounds, and what cannot be is left
out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.vhost_user.memory import Mapper
from iovirt_dist.gateway.vhost_user.messages import Inflight
from iovirt_dist.virtio.chain import SIZE_MAX

_VERSION: Final = 1
_HEADER: Final = struct.Struct("=QHHHH")
"""Features u64, version u16, entries u16, head of the last batch u16, used index u16 (QueueRegionSplit)."""
_VERSION_AT: Final = 8
_BATCH_AT: Final = 12
_USED_AT: Final = 14
_ENTRY_BYTES: Final = 16
"""In flight u8, padding, next u16 at 6, counter u64 at 8 (DescStateSplit)."""
_ALIGNMENT: Final = 64


class InflightError(PeerError):
    """A description of memory for requests in flight cannot be: reason ``inflight-queues`` or ``inflight-size``."""


def queue_bytes(size: int) -> int:
    """Return how much memory the list of one queue takes.

    Args:
        size: Entries of the queue.
    """
    return -(-(_HEADER.size + _ENTRY_BYTES * size) // _ALIGNMENT) * _ALIGNMENT


class QueueLog:
    """The list of one queue.

    Args:
        memory: `queue_bytes` of it for as many entries as the queue has, or more.

    The order of calls is `resume`, and from then on `taken`, and `batch`, the used index, `published`.
    """

    __slots__ = ("_counter", "_counters", "_flags", "_links", "_memory")

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._flags = memory  # entry n begins at byte 16 * n + 16
        self._links = memory.cast("H")
        self._counters = memory.cast("Q")
        self._counter = 0

    @classmethod
    def local(cls, size: int) -> QueueLog:
        """Return one that dies with us, for a queue of so many entries."""
        return cls(memoryview(bytearray(queue_bytes(size))))

    def resume(self, used_index: int, size: int) -> list[int]:
        """Begin: finish what the one before was doing when it died, and return what it left undone.

        Args:
            used_index: As it is in the used ring, 0..65535.
            size: Entries of the queue.

        Returns:
            Heads of the requests in flight, in the order in which they were taken; each is in the list already.
        """
        _, version, entries, batch, known_used = _HEADER.unpack_from(self._memory)
        published = (used_index - known_used) & 0xFFFF
        if version != _VERSION or entries != size or published > size:  # new, or of a ring that is no more
            self._begin(used_index, size)
            return []
        self._finish_batch(batch, published, size)
        self._links[_USED_AT // 2] = used_index
        flags, counters = self._flags, self._counters
        found = [head for head in range(size) if flags[16 * head + 16] == 1]
        found.sort(key=lambda head: counters[2 * head + 3])
        self._counter = 0
        self.taken(found)  # with the lowest counters that keep their order, even if we die amidst it
        return found

    def taken(self, heads: Sequence[int]) -> None:
        """Requests were taken from the ring: they are in flight. The counter is written first."""
        flags, counters, counter = self._flags, self._counters, self._counter
        for head in heads:
            counters[2 * head + 3] = counter
            flags[16 * head + 16] = 1
            counter += 1
        self._counter = counter

    def batch(self, heads: Sequence[int]) -> None:
        """The used index is about to pass these requests; none of a batch before may be unpublished."""
        links, last = self._links, self._links[_BATCH_AT // 2]
        for head in heads:
            links[8 * head + 11] = last
            last = head
        links[_BATCH_AT // 2] = last

    def published(self, used_index: int, heads: Sequence[int]) -> None:
        """The used index is written: they are in flight no more.

        Args:
            used_index: As it is in the used ring now.
            heads: The batch.
        """
        flags = self._flags
        for head in heads:
            flags[16 * head + 16] = 0
        self._links[_USED_AT // 2] = used_index

    def clear(self, used_index: int) -> None:
        """Nothing is in flight: the queue was stopped, and what it had not used goes back to its driver."""
        _, _, size, _, _ = _HEADER.unpack_from(self._memory)
        self._begin(used_index, size)

    def _begin(self, used_index: int, size: int) -> None:
        """Make an empty list; the version last, without which there is none."""
        self._links[_VERSION_AT // 2] = 0
        self._memory[:] = bytes(len(self._memory))
        _HEADER.pack_into(self._memory, 0, 0, 0, size, 0, used_index)
        self._links[_VERSION_AT // 2] = _VERSION
        self._counter = 0

    def _finish_batch(self, head: int, count: int, size: int) -> None:
        """Take the last batch off the list: `count` requests, linked from the last one back."""
        flags, links = self._flags, self._links
        for _ in range(count):
            if head >= size:
                return
            flags[16 * head + 16] = 0
            head = links[8 * head + 11]


class InflightRegion:
    """The lists of all queues, in memory that the front end keeps.

    Args:
        memory: All of it.
        queues: Number of queues.
        queue_size: Entries of each.

    Raises:
        InflightError: The memory is too small for them, or there are none.
    """

    def __init__(self, memory: memoryview, queues: int, queue_size: int) -> None:
        check_shape(queues, queue_size)
        self.queues = queues
        self.queue_size = queue_size
        self._stride = queue_bytes(queue_size)
        if len(memory) < queues * self._stride:
            raise InflightError("inflight-size", f"{len(memory)} bytes for {queues} queues of {queue_size} entries")
        self._memory = memory

    def log(self, queue: int, size: int) -> QueueLog | None:
        """Return the list of a queue; None if there is none for one of that number and size."""
        if queue >= self.queues or size > self.queue_size:
            return None
        start = queue * self._stride
        return QueueLog(self._memory[start : start + self._stride])


def check_shape(queues: int, queue_size: int) -> None:
    """Check numbers of queues and entries.

    Raises:
        InflightError: Reason ``inflight-queues`` or ``inflight-size``.
    """
    if not queues:
        raise InflightError("inflight-queues", "none")
    if not 1 <= queue_size <= SIZE_MAX:
        raise InflightError("inflight-size", f"{queue_size} entries")


def create_region(mapper: Mapper, asked: Inflight) -> tuple[int, Inflight]:
    """Make memory for the lists (GET_INFLIGHT_FD).

    Args:
        mapper: Makes it.
        asked: Numbers of queues and entries; the rest of it is the answer's.

    Returns:
        A descriptor, which is the caller's, and the description of what it is.

    Raises:
        InflightError: As `check_shape`.
        MappingError: There is no memory.
    """
    check_shape(asked.queues, asked.queue_size)
    length = asked.queues * queue_bytes(asked.queue_size)
    file, _ = mapper.create(length)
    return file, asked._replace(size_bytes=length, file_offset=0)


def take_region(mapper: Mapper, file: int, given: Inflight) -> InflightRegion:
    """Take memory with lists (SET_INFLIGHT_FD).

    Raises:
        InflightError: It is too small for what is described.
        MappingError: It is not in the file.
    """
    check_shape(given.queues, given.queue_size)
    return InflightRegion(mapper.map(file, given.file_offset, given.size_bytes), given.queues, given.queue_size)
