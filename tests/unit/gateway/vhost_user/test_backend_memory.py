"""The back end: guest memory, and memory for requests in flight."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.gateway.vhost_user.actions import (
    CloseFds,
    Disconnect,
    MemoryChanged,
    QueueStarted,
    QueueStopping,
    Send,
)
from iovirt_dist.gateway.vhost_user.inflight import queue_bytes
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY, Region, Request
from tests.unit.gateway.vhost_user.front_end import (
    BAD_FD,
    REGION,
    FrontEnd,
    ack,
    inflight,
    message,
    reply_of,
    single,
    table,
)

OTHER = Region(0, 0x1000, 0x1000, 0)


# --- memory


def test_table_closes_its_descriptors(front_end: FrontEnd) -> None:
    """What they map stays."""
    fds = front_end.fd(), front_end.fd()

    assert front_end.send(table([REGION, OTHER]), *fds) == [CloseFds(fds)]
    assert front_end.backend.memory.regions == (OTHER, REGION)


def test_table_that_changes_under_a_queue_is_told(front_end: FrontEnd) -> None:
    """Its areas are where they are now."""
    front_end.start()
    moved = REGION._replace(guest_address=0x4000_0000)

    assert front_end.send(table([moved]), fd := front_end.fd()) == [MemoryChanged(), CloseFds((fd,))]
    assert front_end.backend.queues[0].driver_area == 0x4000_1000


def test_table_without_its_ring_stops_a_queue(front_end: FrontEnd) -> None:
    """The acknowledgement waits; when the region is there again the queue starts."""
    front_end.start()

    gone = front_end.send(table([OTHER], NEED_REPLY), fd := front_end.fd())
    stopped = front_end.did(front_end.backend.queue_stopped(0, 6))
    back = front_end.send(table([REGION]), other := front_end.fd())

    assert gone == [QueueStopping(0), CloseFds((fd,))]
    assert stopped == [ack(Request.SET_MEM_TABLE)]
    assert back == [QueueStarted(0), CloseFds((other,))]


def test_regions_are_added_and_removed(front_end: FrontEnd) -> None:
    """One by one; a queue in what is removed stops."""
    front_end.start()

    added = front_end.send(single(Request.ADD_MEM_REG, OTHER), first := front_end.fd())
    removed = front_end.send(single(Request.REM_MEM_REG, REGION), second := front_end.fd())

    assert added == [MemoryChanged(), CloseFds((first,))]
    assert removed == [QueueStopping(0), CloseFds((second,))]
    assert front_end.backend.memory.regions == (OTHER,)


@pytest.mark.parametrize(
    ("regions", "fd"), [([REGION, REGION], 100), ([REGION._replace(size_bytes=0)], 100), ([OTHER], BAD_FD)]
)
def test_table_that_cannot_be_leaves_the_old(front_end: FrontEnd, regions: list[Region], fd: int) -> None:
    """A queue goes on in it; descriptors are closed."""
    front_end.start()
    fds = tuple(range(fd, fd + len(regions)))

    actions = front_end.send(table(regions, NEED_REPLY), *fds)

    assert actions[0] == CloseFds(fds)
    assert actions[-1] == ack(Request.SET_MEM_TABLE, 1)
    assert front_end.backend.memory.regions == (REGION,)
    assert front_end.backend.queues[0].started


def test_failure_that_cannot_be_told_closes_the_connection() -> None:
    """The front end would go on with memory that we do not have."""
    front_end = FrontEnd()
    front_end.negotiate(protocol=0)

    actions = front_end.send(table([REGION, REGION], NEED_REPLY), front_end.fd(), front_end.fd())

    assert actions[-1] == Disconnect("region-overlap")
    assert not front_end.backend.connected
    assert not front_end.open


# --- requests in flight


def test_inflight_memory_is_made_and_taken_back(front_end: FrontEnd) -> None:
    """A queue that starts has its list in it."""
    size = 2 * queue_bytes(64)

    made = front_end.send(inflight(Request.GET_INFLIGHT_FD, 0, 2, 64))
    taken = front_end.send(inflight(Request.SET_INFLIGHT_FD, size, 2, 64, NEED_REPLY), 1000)
    front_end.start()
    log = front_end.backend.queues[0].log
    log.resume(0, 8)
    log.taken([3])

    fields = struct.pack("=QQHHI", size, 0, 2, 64, 0)
    assert made == [Send(reply_of(Request.GET_INFLIGHT_FD, fields), (1000,))]
    assert taken == [CloseFds((1000,)), ack(Request.SET_INFLIGHT_FD)]
    assert front_end.mapper.files[1000][16 + 16 * 3] == 1


def test_inflight_of_a_back_end_that_died_is_found(front_end: FrontEnd) -> None:
    """By the next one, from the same memory."""
    front_end.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64), 500)
    front_end.start()
    front_end.backend.queues[0].log.resume(0, 8)
    front_end.backend.queues[0].log.taken([3, 1])

    second = FrontEnd()
    second.mapper.files[500] = front_end.mapper.files[500]
    second.negotiate()
    second.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64), 500)
    second.start()

    assert second.backend.queues[0].log.resume(0, 8) == [3, 1]


def test_inflight_memory_is_given_up_with_a_reset(front_end: FrontEnd) -> None:
    """What was in flight is no more; a queue that starts then has a list of its own."""
    front_end.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64), 500)
    front_end.start()
    front_end.send(message(Request.RESET_DEVICE))
    front_end.did(front_end.backend.queue_stopped(0, 0))
    front_end.did(front_end.backend.device_reset())
    front_end.start()

    log = front_end.backend.queues[0].log
    log.resume(0, 8)
    log.taken([3])

    assert not any(front_end.mapper.files[500])


@pytest.mark.parametrize(("queues", "size"), [(3, 8), (0, 8), (2, 0), (2, 0xFFFF)])
def test_inflight_memory_that_cannot_be_is_none(front_end: FrontEnd, queues: int, size: int) -> None:
    """A reply of zeroes: the front end does without."""
    assert front_end.send(inflight(Request.GET_INFLIGHT_FD, 0, queues, size))[-1] == Send(
        reply_of(Request.GET_INFLIGHT_FD, bytes(24))
    )


@pytest.mark.parametrize(("length", "fd"), [(queue_bytes(64), 500), (2 * queue_bytes(64), BAD_FD)])
def test_inflight_memory_that_is_too_small_is_refused(front_end: FrontEnd, length: int, fd: int) -> None:
    """Or is in no file."""
    actions = front_end.send(inflight(Request.SET_INFLIGHT_FD, length, 2, 64, NEED_REPLY), fd)

    assert actions[0] == CloseFds((fd,))
    assert actions[-1] == ack(Request.SET_INFLIGHT_FD, 1)


def test_inflight_memory_comes_before_queues_run(front_end: FrontEnd) -> None:
    """They have their lists already."""
    front_end.start()

    actions = front_end.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64, NEED_REPLY), 500)

    assert actions[-1] == ack(Request.SET_INFLIGHT_FD, 1)
