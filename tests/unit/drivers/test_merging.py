"""Merged commands of a queue pair: ids, data, outcomes, resubmission, what is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import DeviceQueue, Request
from iovirt_dist.ids import MERGED, RequestId, parts_of
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.commands import Command, Opcode, Status
from tests.unit.drivers.support import DISK, Controller, Outcomes

READ, WRITE, FLUSH = Opcode.READ, Opcode.WRITE, Opcode.FLUSH


class Bench:
    """A queue pair that merges, its controller, and a guest's queue."""

    def __init__(self) -> None:
        self.pair = QueuePair("disk0", MultiQueue(), merge=True)
        self.pair.use("root")
        self.controller = Controller(self.pair, {"root": DISK}, 64)
        self.controller.open()
        self.outcomes = Outcomes()
        self.queue = self.outcomes.queue(self.pair)

    def ask(self, *requests: tuple[Opcode, int, int]) -> None:
        """Queue requests (opcode, sector, sectors), their tags 0, 1, ...; written sectors hold the tag."""
        for tag, (opcode, sector, sectors) in enumerate(requests):
            data = bytes([tag]) * sectors * 512 if opcode is WRITE else b""
            self.queue.submit(tag, opcode, sector * 512, sectors * 512, data)
        self.controller.take()

    def only(self) -> Command:
        """The one command that is there."""
        (command,) = self.controller.commands
        return command


def test_merged_command_has_an_id_that_says_so() -> None:
    """Guest and queue, how many, and the first one's sequence: no other command ever has it."""
    bench = Bench()

    bench.ask((READ, 0, 1), (READ, 1, 1), (READ, 2, 1))

    guest, queue, sequence = RequestId.unpack(bench.only().id)
    assert (guest, sequence) == (5, 1)
    assert queue & MERGED
    assert parts_of(queue) == (0, 3)
    assert parts_of(4) == (4, 1)
    assert bench.pair.merged == 2


def test_data_of_a_merged_read_is_split_again() -> None:
    """Each request gets its bytes, whichever order they came in, overlaps included."""
    bench = Bench()
    bench.ask((READ, 2, 1), (READ, 0, 2), (READ, 1, 2))

    bench.controller.complete(bench.only(), data=b"a" * 512 + b"b" * 512 + b"c" * 512)

    assert bench.outcomes.told == [
        (0, Status.OK, b"c" * 512),
        (1, Status.OK, b"a" * 512 + b"b" * 512),
        (2, Status.OK, b"b" * 512 + b"c" * 512),
    ]


def test_data_of_merged_writes_travels_as_one() -> None:
    """In one frame, as the controller wants it."""
    bench = Bench()

    bench.ask((WRITE, 1, 1), (WRITE, 0, 1), (FLUSH, 0, 0))

    write, flush = bench.controller.commands
    assert (write.offset, write.length) == (0, 1024)
    assert bench.controller.data[write.id] == b"\1" * 512 + b"\0" * 512
    assert flush.opcode is FLUSH


def test_read_that_brings_another_length_brings_nothing() -> None:
    """The driver of each request finds that out."""
    bench = Bench()
    bench.ask((READ, 0, 1), (READ, 1, 1))

    bench.controller.complete(bench.only(), data=b"short")

    assert bench.outcomes.told == [(0, Status.OK, b""), (1, Status.OK, b"")]


@pytest.mark.parametrize("status", [Status.READ_ONLY, Status.UNKNOWN_UNIT, Status.QUEUE_FULL, Status.ABORTED])
def test_failure_that_concerns_all_parts_is_theirs(status: Status) -> None:
    """Nothing would change by another attempt."""
    bench = Bench()
    bench.ask((WRITE, 0, 1), (WRITE, 1, 1))

    bench.controller.complete(bench.only(), status)

    assert bench.outcomes.told == [(0, status, b""), (1, status, b"")]
    assert bench.controller.take() == []


@pytest.mark.parametrize("status", [Status.MEDIUM_ERROR, Status.OUT_OF_RANGE, Status.BAD_LENGTH])
def test_failure_that_may_concern_one_part_is_found_out(status: Status) -> None:
    """The parts are submitted again under their own ids, alone, before what waits; each has its outcome."""
    bench = Bench()
    bench.ask((WRITE, 0, 1), (WRITE, 1, 1))
    merged = bench.only()
    bench.queue.submit(9, WRITE, 1024, 512, bytes(512))

    bench.controller.complete(merged, status)
    bench.controller.take()
    first, second, later = bench.controller.commands
    bench.controller.complete(first)
    bench.controller.complete(second, status)
    bench.controller.complete(later)

    assert [RequestId.unpack(command.id) for command in (first, second, later)] == [(5, 0, 1), (5, 0, 2), (5, 0, 3)]
    assert bench.outcomes.told == [(0, Status.OK, b""), (1, status, b""), (9, Status.OK, b"")]
    assert bench.pair.queue.entry(5).in_flight == 0


def test_failed_write_is_not_tried_again_over_a_later_one() -> None:
    """Its data is old; the part that nobody overtook is tried again."""
    bench = Bench()
    bench.ask((WRITE, 0, 1), (WRITE, 1, 1))
    merged = bench.only()
    bench.queue.submit(9, WRITE, 0, 512, bytes(512))
    bench.controller.take()

    bench.controller.complete(merged, Status.MEDIUM_ERROR)
    bench.controller.take()

    assert bench.outcomes.told == [(0, Status.MEDIUM_ERROR, b"")]
    assert [command.offset for command in bench.controller.commands] == [0, 512]


def test_restarted_controller_gets_the_requests_again_in_order() -> None:
    """Merged with what waits, if that touches them: every one once."""
    bench = Bench()
    bench.ask((WRITE, 0, 1), (WRITE, 1, 1), (FLUSH, 0, 0), (WRITE, 2, 1))
    bench.pair.lost()
    bench.queue.submit(4, WRITE, 3 * 512, 512, b"\4" * 512)

    again = Controller(bench.pair, {"root": DISK}, 64)
    again.open()

    assert [(command.opcode, command.offset, command.length) for command in again.commands] == [
        (WRITE, 0, 1024),
        (FLUSH, 0, 0),
        (WRITE, 1024, 1024),
    ]
    assert again.data[again.commands[2].id] == b"\3" * 512 + b"\4" * 512
    assert bench.pair.resubmitted == 4


def test_requests_that_do_not_fit_a_message_are_put_back_one_by_one() -> None:
    """They are merged when their turn comes."""
    bench = Bench()
    quarter = bytes(MAX_PAYLOAD_BYTES // 4)
    for tag in range(4):
        bench.queue.submit(tag, WRITE, 0, len(quarter), quarter)
    bench.queue.submit(4, WRITE, 0, 512, bytes(512))
    bench.queue.submit(5, WRITE, 512, 512, bytes(512))

    assert bench.controller.take() == [4, 1]
    assert [command.length for command in bench.controller.commands[4:]] == [1024]


def test_requests_of_a_guest_that_is_gone_end_into_nothing() -> None:
    """Merged ones, too; and it has nothing in flight any more when they have ended."""
    bench = Bench()
    bench.ask((READ, 0, 1), (READ, 1, 1))
    entry = bench.queue.entry

    bench.pair.forget(5)
    bench.controller.complete(bench.only(), data=bytes(1024))

    assert bench.outcomes.told == []
    assert entry.in_flight == 0


def test_failed_write_of_a_guest_that_is_gone_is_not_tried_again() -> None:
    """The guest's next life may have read what was there, or have written since."""
    bench = Bench()
    bench.ask((WRITE, 0, 1), (WRITE, 1, 1))
    merged = bench.only()

    bench.pair.forget(5)
    bench.controller.complete(merged, Status.MEDIUM_ERROR)

    assert bench.controller.take() == []
    assert bench.queue.entry.in_flight == 0


def test_unit_that_is_not_identified_parks_requests_one_by_one() -> None:
    """They are merged once it has a number."""
    bench = Bench()
    other = bench.outcomes.queue(bench.pair, unit="other")
    for tag in range(3):
        other.submit(tag, READ, tag * 512, 512)
    parked = bench.controller.take()

    bench.controller.units["other"] = DISK
    bench.pair.use("other")
    bench.controller.take()

    assert parked == []
    assert bench.only().length == 3 * 512


class Batches(Outcomes):
    """A requester that likes batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[list[int], list[int], int]] = []

    def succeeded_many(
        self, requests: Sequence[Request], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int
    ) -> None:
        """Keep tags, lengths, and how many bytes came."""
        self.batches.append(([request.tag for request in requests], list(lengths), sum(map(len, frames))))


@pytest.mark.parametrize(
    ("opcode", "size", "lengths"), [(READ, 1024, [512, 512]), (WRITE, 0, [0, 0]), (Opcode.DISCARD, 0, [0, 0])]
)
def test_requester_of_batches_hears_of_all_parts_at_once(opcode: Opcode, size: int, lengths: list[int]) -> None:
    """What was read is not even cut."""
    bench = Bench()
    batches = Batches()
    bench.queue.requester, bench.queue.batches = batches, batches
    bench.ask((opcode, 0, 1), (opcode, 1, 1))

    bench.controller.complete(bench.only(), data=bytes(size))

    assert batches.batches == [([0, 1], lengths, size)]
    assert isinstance(bench.queue, DeviceQueue)
    assert bench.queue.entry.in_flight == 0
