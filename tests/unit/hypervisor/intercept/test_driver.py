"""Tests of interception at the driver level: doorbells in, completions out (wire.queue_messages)."""

from __future__ import annotations

from itertools import count

import pytest

from iovirt_dist.errors import DecodeError
from iovirt_dist.hypervisor.intercept.driver import (
    MAX_FAULT_REASONS,
    OTHER_REASON,
    DriverInterception,
    unpack_requests,
)
from iovirt_dist.hypervisor.vdev.virtio_queue import VirtioQueue
from iovirt_dist.step import Tracer
from iovirt_dist.virtio.block import HEADER
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES
from iovirt_dist.wire.commands import Status
from iovirt_dist.wire.messages import Message, Trap, TrapKind
from iovirt_dist.wire.queue_messages import (
    ALWAYS,
    NEVER,
    Completions,
    DisarmQueue,
    Doorbell,
    QueueBroken,
    QueueInterrupt,
)
from iovirt_dist.wire.requests import MAX_REQUESTS, REQUEST, QueueRequest
from tests.unit.hypervisor.vdev.virtio_bench import (
    LIVE,
    NEEDS_RESET,
    NUMBER,
    USED,
    BlockBench,
    Offered,
    pack_requests,
    unpack_returned,
)

KIB = 1024
READ = HEADER.pack(0, 0, 0)


def reads(number: int, length: int = 512, first: int = 0) -> list[Offered]:
    """As many reads, with heads from the first on."""
    return [Offered(head, READ, length + 1) for head in range(first, first + number)]


def completions(bench: BlockBench) -> list[tuple[Completions, tuple[int, ...]]]:
    """Completions of the flush now, with the sizes of their frames."""
    return [(body, tuple(map(len, frames))) for body, frames in bench.flush() if isinstance(body, Completions)]


# --- doorbells


def test_unpack_requests_gives_headers_and_data_without_copying() -> None:
    """Zeroes behind a header that is short; data out of one frame."""
    entries, payload = pack_requests(
        [Offered(1, b"HEADER16BYTES!!!" + b"data" * 8, 5), Offered(2, b"short", 9), Offered(3)], 16
    )

    requests = unpack_requests(entries, 16, payload)

    assert requests == [
        QueueRequest(1, 48, 5, b"HEADER16BYTES!!!", b"data" * 8),
        QueueRequest(2, 5, 9, b"short" + bytes(11), b""),
        QueueRequest(3, 0, 0, bytes(16), b""),
    ]
    assert isinstance(requests[0].data, memoryview)


@pytest.mark.parametrize(
    ("entries", "payload", "reason"),
    [
        (bytes(27), (), "batch-size"),
        (bytes(28) * (MAX_REQUESTS + 1), (), "batch-size"),
        (b"\0\0\1" + bytes(25), (), "reserved-bits"),
        (b"\0\0\0\1" + bytes(24), (), "reserved-bits"),
        (bytes(28), (b"x",), "payload-frames"),
        (bytes(28), (b"",), "payload-frames"),
        (REQUEST.pack(0, 0, 20, 0) + bytes(16), (), "payload-frames"),
        (REQUEST.pack(0, 0, 20, 0) + bytes(16), (b"abc",), "payload-frames"),
        (REQUEST.pack(0, 0, 20, 0) + bytes(16), (b"ab", b"cd"), "payload-frames"),
        (REQUEST.pack(0, 0, 20, 0) + bytes(16), (b"abcde",), "payload-frames"),
        (REQUEST.pack(0, 0, 0xFFFF_FFFF, 0) + bytes(16), (b"abcd",), "payload-frames"),
    ],
)
def test_unpack_requests_of_what_is_no_batch_says_why(entries: bytes, payload: tuple[bytes, ...], reason: str) -> None:
    """One reason for each rule."""
    with pytest.raises(DecodeError) as error:
        unpack_requests(entries, 16, payload)

    assert error.value.reason == reason


def test_doorbell_that_offers_nothing_counts_and_asks_nobody() -> None:
    """A driver may notify for nothing."""
    bench = BlockBench()

    assert bench.doorbell(0)
    assert (bench.host.doorbells, bench.host.notifications, bench.host.requests) == (1, 1, 0)
    assert bench.flush() == []


def test_doorbell_that_is_malformed_has_no_effect() -> None:
    """Not even its good requests."""
    bench = BlockBench()
    entries, _ = pack_requests([*reads(2), Offered(2, READ + b"data", 1)], 16)

    taken = bench.host.message(Doorbell(NUMBER, 0, bench.generations[0], 1, ALWAYS, entries), (), 0)

    assert not taken
    assert bench.disk.requests == []
    assert (bench.host.malformed, bench.host.doorbells) == (1, 0)


@pytest.mark.parametrize(("device", "queue"), [(NUMBER + 1, 0), (NUMBER, 1), (0, 0)])
def test_doorbell_of_what_does_not_exist_is_malformed(device: int, queue: int) -> None:
    """Devices and queues that the machine does not have."""
    bench = BlockBench()

    assert not bench.host.message(Doorbell(device, queue, 1, 1, NEVER, b""), (), 0)


def test_doorbell_of_an_earlier_life_is_stale() -> None:
    """Which honest guests send, too: the queue was disabled meanwhile."""
    bench = BlockBench()
    old = bench.generations[0]
    entries, _ = pack_requests(reads(1), 16)
    bench.write(Register.QUEUE_READY, 0)

    disarmed = bench.host.message(Doorbell(NUMBER, 0, old, 1, NEVER, entries), (), 0)
    nobody = bench.host.message(Doorbell(NUMBER, 0, 0, 1, NEVER, entries), (), 0)
    bench.write(Register.QUEUE_READY, 1)
    armed_anew = bench.host.message(QueueInterrupt(NUMBER, 0, old), (), 0)

    assert (disarmed, nobody, armed_anew) == (True, True, True)
    assert bench.host.stale == 3
    assert bench.disk.requests == []


def test_doorbell_with_more_requests_than_the_queue_holds_is_malformed() -> None:
    """64 entries, of which 60 are in flight: 5 more cannot be on the ring, 4 can."""
    bench = BlockBench()
    first = bench.doorbell(0, *reads(60))

    beyond = bench.doorbell(0, *reads(5, first=60))
    rest = bench.doorbell(0, *reads(4, first=60))
    bench.complete()
    again = bench.doorbell(0, *reads(64))

    assert (first, beyond, rest, again) == (True, False, True, True)


def test_message_of_another_kind_is_malformed() -> None:
    """It should not have come here."""
    body: Message = Trap(1, TrapKind.PORT_IN, 0, 1, 1, 0, 0)

    assert not BlockBench().host.message(body, (), 0)


# --- completions and interrupts


def test_completions_of_a_batch_leave_as_one_message() -> None:
    """Entries in the order of completion; their data shares a frame."""
    bench = BlockBench()
    bench.doorbell(0, *reads(64, 4 * KIB))
    for request in bench.disk.requests:
        bench.blk.complete(request.tag, Status.OK, bytes(request.length), 0)

    ((body, frames),) = completions(bench)

    assert (body.device, body.queue, body.generation) == (NUMBER, 0, bench.generations[0])
    assert len(body.completions) == 64 * 8
    assert frames == (64 * 4 * KIB,)
    assert bench.host.completions == 64
    assert (bench.host.batches, bench.host.bytes_in) == (1, 64 * 4 * KIB)


def test_completions_with_large_data_do_not_copy_it() -> None:
    """A frame of its own, the object that the backend gave."""
    bench = BlockBench()
    bench.doorbell(0, *reads(1, 1 << 20))
    data = bytes(1 << 20)

    bench.blk.complete(bench.disk.requests[0].tag, Status.OK, data, 0)
    ((_, payload),) = bench.flush()

    assert payload[0] is data


def test_completions_of_more_data_than_a_message_carries_are_divided() -> None:
    """Each message holds whole requests, and everything arrives in order."""
    bench = BlockBench()
    bench.doorbell(0, *reads(14, 3 << 20))
    for request in bench.disk.requests:
        bench.blk.complete(request.tag, Status.OK, bytes((request.tag >> 5 & 0xFF,)) * request.length, 0)

    messages = [(body, payload) for body, payload in bench.flush() if isinstance(body, Completions)]

    assert [len(body.completions) // 8 for body, _ in messages] == [5, 5, 4]
    assert all(sum(map(len, payload)) <= MAX_PAYLOAD_BYTES for _, payload in messages)
    returned = [one for body, payload in messages for one in unpack_returned(body, payload)]
    assert [(one.head, one.data[0], one.tail) for one in returned] == [(head, head, 0) for head in range(14)]


def test_completions_that_are_joined_are_never_divided() -> None:
    """By number of entries or by their data: the message before ends early instead."""
    host = DriverInterception(tuple, count(1).__next__)
    host.add(BlockBench().device)
    queue = VirtioQueue(NUMBER, 0, 4096, 0, host)
    queue.arm()
    queue.announced = queue.generation
    third = bytes(MAX_PAYLOAD_BYTES // 3)
    for head in range(MAX_REQUESTS - 1):
        queue.complete(head)
    queue.complete_together([2000, 2001], [b"a", b"b"])
    queue.complete_together([2002, 2003, 2004], [third, third, third])

    messages = [(body, data) for body, data in host.flush(0) if isinstance(body, Completions)]
    heads = [[one.head for one in unpack_returned(body, data)] for body, data in messages]

    assert heads == [[*range(MAX_REQUESTS - 1)], [2000, 2001], [2002, 2003, 2004]]


def test_completions_beyond_the_most_entries_are_divided() -> None:
    """A queue may be larger than a message."""
    host = DriverInterception(tuple, count(1).__next__)
    bench = BlockBench()
    host.add(bench.device)
    queue = VirtioQueue(NUMBER, 0, 4096, 0, host)
    queue.arm()
    queue.announced = queue.generation
    for head in range(MAX_REQUESTS + 1):
        queue.complete(head)

    sizes = [len(body.completions) // 8 for body, _ in host.flush(0) if isinstance(body, Completions)]

    assert sizes == [MAX_REQUESTS, 1]
    assert queue.completed == MAX_REQUESTS + 1


@pytest.mark.parametrize(
    ("interrupt_at", "interrupts"),
    [
        (NEVER, [False, False, False]),
        (ALWAYS, [True, True, True]),
        (1, [True, False, False]),
        (4, [True, False, False]),
        (5, [False, True, False]),
        (8, [False, True, False]),
        (12, [False, False, True]),
        (13, [False, False, False]),
    ],
)
def test_interrupt_comes_with_the_batch_that_reaches_the_wanted_completion(
    interrupt_at: int, interrupts: list[bool]
) -> None:
    """Three batches of four; completions are counted from 1 since the queue was armed."""
    bench = BlockBench()
    said = []
    for _ in range(3):
        bench.doorbell(0, *reads(4), interrupt_at=interrupt_at)
        for request in bench.disk.requests:
            bench.blk.complete(request.tag, Status.OK, bytes(512), 0)
        bench.disk.requests.clear()
        said += [body.interrupt for body, _ in completions(bench)]

    assert said == interrupts
    assert bench.host.interrupts == sum(interrupts)
    assert bench.line.level is any(interrupts)


def test_interrupt_count_starts_anew_when_the_queue_is_armed_anew() -> None:
    """The driver's count does, too."""
    bench = BlockBench()
    bench.doorbell(0, *reads(4))
    bench.complete()
    bench.start()

    bench.doorbell(0, *reads(1), interrupt_at=1)
    bench.complete()

    assert bench.host.interrupts == 1


def test_completions_carry_the_lines_that_changed() -> None:
    """They take effect once the used ring is written."""
    bench = BlockBench()
    bench.doorbell(0, *reads(1), interrupt_at=ALWAYS)
    bench.lines = (9, 5)
    bench.blk.complete(bench.disk.requests[0].tag, Status.OK, bytes(512), 0)

    ((body, _),) = completions(bench)

    assert body.lines == (9, 5)


def test_queue_interrupt_raises_the_used_buffer_interrupt() -> None:
    """Completions whose batch came without one."""
    bench = BlockBench()

    taken = bench.host.message(QueueInterrupt(NUMBER, 0, bench.generations[0]), (), 0)

    assert taken
    assert bench.host.late_interrupts == 1
    assert bench.read(Register.INTERRUPT_STATUS) == USED


def test_completions_of_a_queue_that_is_disarmed_before_the_flush_are_dropped() -> None:
    """Only the end of its life is told."""
    bench = BlockBench()
    old = bench.generations[0]
    bench.doorbell(0, *reads(1), interrupt_at=ALWAYS)
    bench.blk.complete(bench.disk.requests[0].tag, Status.OK, bytes(512), 0)

    bench.write(Register.STATUS, 0)

    assert bench.bodies() == [DisarmQueue(NUMBER, 0, old)]
    assert not bench.line.level


# --- broken queues


def test_queue_broken_asks_for_a_reset_and_is_counted_by_reason() -> None:
    """Section 2.1.2 of VIRTIO: NEEDS_RESET and a configuration change notification."""
    bench = BlockBench()
    generation = bench.generations[0]

    taken = bench.host.message(QueueBroken(NUMBER, 0, generation, "descriptor-loop", "at 17"), (), 0)

    assert taken
    assert bench.host.faults == {"descriptor-loop": 1}
    assert bench.host.last_fault == "virtio device 3: descriptor-loop, queue 0: at 17"
    assert bench.read(Register.STATUS) == LIVE | NEEDS_RESET
    assert bench.bodies() == [DisarmQueue(NUMBER, 0, generation)]


def test_queue_broken_for_ever_new_reasons_is_counted_in_bounded_memory() -> None:
    """The words come from the guest's process."""
    bench = BlockBench()

    for number in range(MAX_FAULT_REASONS + 10):
        bench.host.message(QueueBroken(NUMBER, 0, bench.generations[0], f"reason-{number}"), (), 0)
        bench.start()

    assert len(bench.host.faults) == MAX_FAULT_REASONS + 1
    assert bench.host.faults[OTHER_REASON] == 10


def test_generation_is_never_0_and_fits_its_field() -> None:
    """2**32 - 1 is followed by 1."""
    numbers = count((1 << 32) - 1)
    host = DriverInterception(tuple, numbers.__next__)

    assert [host.next_generation() for _ in range(3)] == [(1 << 32) - 1, 1, 2]


def test_trace_shows_doorbells_and_completions_while_somebody_looks() -> None:
    """Device, queue, number of requests and bytes; a doorbell under the number of the trap that rang."""
    tracer = Tracer("alice")
    bench = BlockBench()
    bench.host._tracer = tracer
    bench.doorbell(0, *reads(2))
    tracer.on = True

    bench.doorbell(0, *reads(3, first=2), number=47)
    bench.complete()

    assert [(point.number, point.event, dict(point.fields)) for point in tracer.take()] == [
        (47, "doorbell", {"device": NUMBER, "queue": 0, "requests": 3, "bytes": 0}),
        (0, "completions", {"device": NUMBER, "queue": 0, "requests": 5, "bytes": 2560}),
    ]
