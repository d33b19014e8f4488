"""Completions of one armed queue: what is written to guest memory, and what is counted."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.armed_queue import Outgoing
from iovirt_dist.wire.queue_messages import Completions, QueueInterrupt
from iovirt_dist.wire.requests import MAX_REQUESTS
from tests.unit.guest.armed_bench import LAYOUTS, Bench
from tests.unit.guest.queue_bench import (
    DATA,
    HEADERS,
    SPLIT,
    QueueCompletion,
)


@LAYOUTS
def test_completion_writes_data_and_tail_and_uses_the_request(features: int) -> None:
    """The used length counts the tail because all before it is written."""
    bench = Bench(features)
    head = bench.add_read(3)
    bench.ring()

    bench.complete(QueueCompletion(head, 4096, 0), data=(b"\xab" * 4096,), interrupt=True)

    assert bench.data(3, 4096) == b"\xab" * 4096
    assert bench.status(3) == 0
    assert bench.driver.take_used() == [(head, 4097)]
    assert bench.queue.in_flight == {}


def test_completion_with_less_data_leaves_the_rest_alone() -> None:
    """And claims no byte that was not written (section 2.7.8.2)."""
    bench = Bench()
    head = bench.add_read(0)
    bench.memory.write(DATA, b"\xff" * 4096)
    bench.ring()

    bench.complete(QueueCompletion(head, 5, 1), data=(b"short",), interrupt=True)

    assert bench.data(0, 7) == b"short\xff\xff"
    assert bench.status(0) == 1
    assert bench.driver.take_used() == [(head, 5)]


def test_completion_without_tail_writes_data_only() -> None:
    """Entropy, received characters."""
    bench = Bench(header_bytes=0)
    head = bench.add([], [(DATA, 64)])
    bench.ring()

    bench.complete(QueueCompletion(head, 3), data=(b"key",), interrupt=True)

    assert bench.memory.read(DATA, 4) == b"key\0"
    assert bench.driver.take_used() == [(head, 3)]


def test_completion_scatters_over_segments() -> None:
    """Data that ends inside of one, and a tail in the last."""
    bench = Bench()
    head = bench.add([(HEADERS, 16)], [(DATA, 3), (DATA + 100, 4), (DATA + 200, 5)])
    bench.ring()

    bench.complete(QueueCompletion(head, 9, 0x5A), data=(b"abcdefghi",), interrupt=True)

    assert bench.memory.read(DATA, 4) == b"abc\0"
    assert bench.memory.read(DATA + 100, 5) == b"defg\0"
    assert bench.memory.read(DATA + 200, 6) == b"hi\0\0\x5a\0"
    assert bench.driver.take_used() == [(head, 9)]


@pytest.mark.parametrize(
    ("writable", "completion", "data", "used", "memory"),
    [
        ([(DATA, 4)], QueueCompletion(0, 6), b"abcdef", 4, b"abcd\0"),
        ([(DATA, 4)], QueueCompletion(0, 4, 7), b"abcd", 4, b"abc\x07\0"),
        ([(DATA, 1)], QueueCompletion(0, 3, 7), b"abc", 1, b"\x07\0\0\0\0"),
        ([], QueueCompletion(0, 3, 7), b"abc", 0, bytes(5)),
        ([], QueueCompletion(0, 0, 7), b"", 0, bytes(5)),
        ([], QueueCompletion(0, 2), b"ab", 0, bytes(5)),
    ],
)
def test_completion_longer_than_the_writable_part_is_cut_and_counted(
    writable: list[tuple[int, int]], completion: QueueCompletion, data: bytes, used: int, memory: bytes
) -> None:
    """The hypervisor is a peer, too."""
    bench = Bench()
    head = bench.add([(HEADERS, 16)], writable)
    bench.ring()

    bench.complete(completion._replace(head=head), data=(data,) if data else (), interrupt=True)

    assert bench.memory.read(DATA, 5) == memory
    assert bench.driver.take_used() == [(head, used)]
    assert bench.counts.cut == 1


def test_completion_of_a_request_that_is_not_in_flight_is_counted_and_its_data_skipped() -> None:
    """The next one of the batch gets its own."""
    bench = Bench()
    head = bench.add_read(0)
    bench.ring()

    bench.complete(
        QueueCompletion(head + 9, 3, 0),
        QueueCompletion(head, 4, 0),
        QueueCompletion(head, 2, 0),
        data=(b"xyzgood", b"no"),
        interrupt=True,
    )

    assert bench.data(0, 5) == b"good\0"
    assert bench.counts.unknown == 2
    assert bench.driver.take_used() == [(head, 4)]


@pytest.mark.parametrize(
    ("completions", "payload"),
    [
        (b"\0" * 7, ()),
        (b"\0" * 9, ()),
        (b"\0" * 8 * (MAX_REQUESTS + 1), ()),
        (b"\0\0\0\0\x09\0\0\0", ()),
        (b"\0\0\0\0\x09\0\0\0", (b"12345678",)),
        (b"\0\0\0\0\0\0\0\0", (b"left",)),
    ],
)
def test_malformed_batch_is_counted(completions: bytes, payload: tuple[bytes, ...]) -> None:
    """Nothing else comes of it but what was whole."""
    bench = Bench()
    bench.add_read(0)
    bench.ring()

    bench.queue.complete(Completions(2, 1, 7, True, completions), payload)

    assert bench.counts.malformed == 1
    assert not bench.queue.broken


def test_interrupt_that_the_hypervisor_did_not_raise_is_asked_for_once_the_ring_is_written() -> None:
    """And only then; not if it raised it, nor if the driver wants none."""
    bench = Bench(features=SPLIT & ~(1 << 29))
    heads = [bench.add_read(number) for number in range(3)]
    bench.ring()

    asked = bench.complete(QueueCompletion(heads[0], 0, 0))
    raised = bench.complete(QueueCompletion(heads[1], 0, 0), interrupt=True)
    bench.driver.disable_interrupts()
    unwanted = bench.complete(QueueCompletion(heads[2], 0, 0))

    assert (asked, raised, unwanted) == ([Outgoing(QueueInterrupt(2, 1, 7))], [], [])
