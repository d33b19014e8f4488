"""One armed queue, against a driver's ring in plain memory."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.armed_queue import MAX_LOAD_BYTES, SEGMENT_LOAD_BYTES, ArmedQueue, Outgoing, QueueCounts
from iovirt_dist.guest.queue_home import MachineHome
from iovirt_dist.virtio.ring import RingError
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES
from iovirt_dist.wire.payload import JOIN_BYTES
from iovirt_dist.wire.queue_messages import ALWAYS, NEVER, Doorbell, QueueBroken
from iovirt_dist.wire.requests import MAX_REQUESTS, QueueRequest
from tests.unit.guest.armed_bench import LARGE, LAYOUTS, Bench
from tests.unit.guest.queue_bench import (
    DATA,
    HEADER_BYTES,
    HEADERS,
    RING,
    SPLIT,
    DriverBench,
    QueueCompletion,
    Rung,
)


@LAYOUTS
def test_doorbell_carries_each_request_with_its_header_inside(features: int) -> None:
    """In the order in which they were offered, in one message; reads have no payload."""
    bench = Bench(features)
    heads = [bench.add_read(number) for number in range(3)]

    (rung,) = bench.ring()

    assert [request.head for request in rung.requests] == heads
    assert [request.header for request in rung.requests] == [bytes([n]) * 16 for n in range(3)]
    assert [request[1:3] for request in rung.requests] == [(16, 4097)] * 3
    assert rung.notifications == 1


@LAYOUTS
def test_doorbell_carries_the_header_as_it_is_now_of_a_request_that_comes_again(features: int) -> None:
    """The same descriptors, another header each time."""
    bench = Bench(features)
    headers = []
    for turn in range(4):
        head = bench.add_read(0)
        bench.memory.write(HEADERS, bytes([turn]) * HEADER_BYTES)
        (rung,) = bench.ring()
        headers += [request.header for request in rung.requests]
        bench.complete(QueueCompletion(head, 1, 0), data=(bytes([turn]),))
        bench.driver.take_used()

    assert headers == [bytes([turn]) * HEADER_BYTES for turn in range(4)]
    assert bench.data(0, 1) == b"\3"
    assert (bench.counts.requests, bench.counts.bytes_out, bench.counts.bytes_in) == (4, 64, 4)
    assert bench.queue.in_flight == {}


@LAYOUTS
def test_doorbell_carries_what_is_readable_behind_the_header_as_payload(features: int) -> None:
    """One piece for each request that has any."""
    bench = Bench(features)
    bench.add_write(0, b"first")
    bench.add_read(1)
    bench.add_write(2, b"third")

    (rung,) = bench.ring()

    assert [bytes(request.data) for request in rung.requests] == [b"first", b"", b"third"]
    assert [request.readable for request in rung.requests] == [21, 16, 21]


def test_doorbell_payload_of_one_large_segment_is_guest_memory_itself() -> None:
    """Not a copy: it changes with the memory."""
    bench = Bench()
    bench.add([(HEADERS, 16), (DATA, JOIN_BYTES + 1)], [(HEADERS + 16, 1)])

    (outgoing,) = bench.queue.gather(1)
    bench.memory.write(DATA, b"changed")

    assert bytes(outgoing.payload[0][:7]) == b"changed"


@pytest.mark.parametrize(
    "segments",
    [
        [(DATA, 100)],
        [(DATA, 16), (DATA + 16, 84)],
        [(DATA, 7), (DATA + 7, 93)],
        [(DATA, 7), (DATA + 7, 5), (DATA + 12, 4), (DATA + 16, 80), (DATA + 96, 4)],
        [(DATA, 16), (DATA + 16, 40), (DATA + 56, 44)],
        [(DATA, 20), (DATA + 20, 80)],
    ],
)
def test_doorbell_header_and_data_do_not_depend_on_the_segments(segments: list[tuple[int, int]]) -> None:
    """Section 2.6.4: a device must not assume a framing."""
    bench = Bench()
    content = bytes(range(100))
    bench.memory.write(DATA, content)
    head = bench.add(segments, [])

    (rung,) = bench.ring()

    assert rung.requests == [QueueRequest(head, 100, 0, content[:16], content[16:])]


def test_doorbell_header_of_a_shorter_request_is_padded_with_zeroes() -> None:
    """And `readable` says how long it was."""
    bench = Bench()
    bench.memory.write(DATA, b"abc")
    head = bench.add([(DATA, 3)], [(DATA, 9)])

    (rung,) = bench.ring()

    assert rung.requests == [QueueRequest(head, 3, 9, b"abc" + bytes(13), b"")]


def test_doorbell_of_a_device_class_without_headers_has_all_as_payload() -> None:
    """A console's characters, for one; and rooms to receive in have none at all."""
    bench = Bench(header_bytes=0)
    bench.memory.write(DATA, b"hello")
    first = bench.add([(DATA, 5)], [])
    second = bench.add([], [(DATA, 64)])

    (rung,) = bench.ring()

    assert rung.requests == [QueueRequest(first, 5, 0, b"", b"hello"), QueueRequest(second, 0, 64, b"", b"")]


def test_doorbell_of_an_empty_ring_is_told() -> None:
    """It was a trap: both sides count it."""
    bench = Bench()

    assert bench.ring() == [Rung(1, 1, [])]


def test_gathering_without_a_notification_tells_nothing_of_an_empty_ring() -> None:
    """Nobody asked."""
    assert Bench().queue.gather(0) == []


def test_completions_of_nothing_look_at_the_ring() -> None:
    """The device has run out of requests, and the driver may have offered some without a notification."""
    bench = Bench()
    before = bench.complete()
    head = bench.add_read(0)

    (rung,) = [bench.rung(outgoing) for outgoing in bench.complete()]

    assert before == []
    assert [request.head for request in rung.requests] == [head]
    assert rung.notifications == 0


def test_doorbell_says_with_which_completion_an_interrupt_is_due() -> None:
    """Event index: the second; suppressed: none."""
    bench = Bench()
    bench.driver.interrupt_after(2)
    second = bench.ring()[0].interrupt_at
    plain = Bench(features=SPLIT & ~(1 << 29))
    always = plain.ring()[0].interrupt_at
    plain.driver.disable_interrupts()
    never = plain.ring()[0].interrupt_at

    assert (second, always, never) == (2, ALWAYS, NEVER)


def test_doorbell_with_more_requests_than_a_message_holds_is_several() -> None:
    """The first tells the notification, the order stays."""
    bench = Bench(size=4096)
    heads = [bench.add([(DATA, 16)], [(DATA, 1)]) for _ in range(MAX_REQUESTS + 500)]

    rungs = bench.ring()

    assert [(rung.notifications, len(rung.requests)) for rung in rungs] == [(1, MAX_REQUESTS), (0, 500)]
    assert [request.head for rung in rungs for request in rung.requests] == heads


def test_doorbell_with_more_payload_than_a_message_holds_is_several() -> None:
    """Each within the bound."""
    bench = Bench(memory_bytes=LARGE)
    for _ in range(5):
        bench.add([(DATA, 16 + (7 << 20))], [])

    outgoing = bench.queue.gather(1)

    assert [sum(map(len, payload)) >> 20 for _, payload in outgoing] == [14, 14, 7]
    assert sum(len(bench.rung(one).requests) for one in outgoing) == 5


def test_request_that_no_message_can_hold_breaks_the_queue() -> None:
    """Split over many segments that overlap, it would have to be copied."""
    bench = Bench(memory_bytes=LARGE)
    bench.add([(DATA, MAX_PAYLOAD_BYTES), (DATA, HEADER_BYTES + 1)], [])

    doorbell, broken = bench.queue.gather(1)

    assert bench.rung(doorbell) == Rung(1, NEVER, [])
    assert isinstance(broken.body, QueueBroken)
    assert (broken.body.reason, bench.counts.broken) == ("request-size", 1)
    assert MAX_PAYLOAD_BYTES + HEADER_BYTES == 16 + (16 << 20)


def test_requests_above_the_load_wait_until_others_are_complete() -> None:
    """No ring makes us copy or hold more than the bound at a time."""
    bench = Bench(memory_bytes=LARGE)
    heads = [bench.add([(DATA, 15 << 20)], []) for _ in range(7)]

    first = [request.head for rung in bench.ring() for request in rung.requests]
    silent = bench.ring()
    then = [bench.rung(outgoing) for outgoing in bench.complete(QueueCompletion(heads[0]), interrupt=True)]

    assert first == heads[:5]
    assert silent == [Rung(1, 1, [])]
    assert [request.head for rung in then for request in rung.requests] == heads[5:6]
    assert then[0].notifications == 0


def test_requests_of_nothing_but_segments_are_a_load_too() -> None:
    """Each segment is kept until its request is complete."""
    bench = Bench(size=512)
    for number in range(200):
        bench.driver.add([(DATA + at, 1) for at in range(400)], [], 0x10_0000 + number % 64 * 0x2000)

    bench.ring()

    each = 400 * (SEGMENT_LOAD_BYTES + 1)
    assert len(bench.queue.in_flight) == -(-MAX_LOAD_BYTES // each) < 200


@LAYOUTS
def test_ring_that_cannot_be_walked_is_reported_once(features: int) -> None:
    """Then the queue is silent, but each store is told: it is a trap."""
    bench = Bench(features)
    bench.add_read(0)
    bench.memory.write(RING, (1 << 40).to_bytes(8, "little"))

    first, broken = bench.queue.gather(1)
    later = bench.queue.gather(1)

    assert bench.rung(first) == Rung(1, NEVER, [])
    assert broken == Outgoing(QueueBroken(2, 1, 7, "buffer-memory", broken.body.detail))  # type: ignore[union-attr]  # a doorbell would differ
    assert [bench.rung(outgoing) for outgoing in later] == [Rung(1, NEVER, [])]
    assert bench.counts.broken == 1


def test_broken_queue_ignores_completions() -> None:
    """What was in flight is dropped; nothing is written."""
    bench = Bench()
    head = bench.add_read(0)
    bench.ring()
    bench.memory.write(RING + 256 * 16 + 2, b"\xff\xff")  # available index
    bench.queue.gather(1)

    assert bench.complete(QueueCompletion(head, 4, 0), data=(b"data",)) == []
    assert bench.data(0, 4) == bytes(4)


def test_ring_areas_that_cannot_be_are_an_error() -> None:
    """Of arming."""
    bench = DriverBench()
    arm = bench.arm

    with pytest.raises(RingError):
        ArmedQueue(MachineHome(bench.memory), type(arm)(2, 1, 7, 0, 256, 1 << 40, 0, 0, SPLIT, 16), QueueCounts())


def test_counts_are_those_of_what_went_through() -> None:
    """Readable bytes with headers, and data without tails."""
    bench = Bench()
    heads = [bench.add_write(0, b"12345"), bench.add_read(1)]
    bench.ring()

    bench.complete(QueueCompletion(heads[0], 0, 0), QueueCompletion(heads[1], 7, 0), data=(b"7 bytes",))

    counts = bench.counts
    assert (counts.requests, counts.completions, counts.bytes_out, counts.bytes_in) == (2, 2, 37, 7)
    assert isinstance(bench.queue.gather(1)[0].body, Doorbell)
