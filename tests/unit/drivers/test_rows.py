"""Completions of several guests in one batch: each requester hears of its row at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Completion, Opcode, Status
from tests.unit.drivers.support import DISK, Controller


class Guest:
    """A requester that takes batches.

    Attributes:
        rows: What it heard at once: tags and data.
        single: What it heard one by one: tag and status.
    """

    def __init__(self, pair: QueuePair, number: int, *, batches: bool = True) -> None:
        self.rows: list[tuple[list[int], bytes]] = []
        self.single: list[tuple[int, Status]] = []
        self.queue = pair.device_queue("root", number, 0, self)
        self.queue.batches = self if batches else None

    def read(self, tag: int) -> None:
        """Submit a read of a sector."""
        self.queue.submit(tag, Opcode.READ, 0, 512)

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Keep it."""
        self.single.append((request.tag, status))

    def succeeded_many(
        self, requests: Sequence[Request], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int
    ) -> None:
        """Keep them."""
        assert list(lengths) == [512] * len(requests)
        self.rows.append(([request.tag for request in requests], b"".join(frames)))


def bench(*, batches: bool = True) -> tuple[QueuePair, Controller, Guest, Guest]:
    """Two guests with two reads each in flight: tags 10 and 11, 20 and 21; commands in this order."""
    pair = QueuePair("disk0", MultiQueue(depth=0))
    pair.use("root")
    controller = Controller(pair, {"root": DISK})
    controller.open()
    first, second = Guest(pair, 1), Guest(pair, 2, batches=batches)
    for guest, tag in ((first, 10), (first, 11), (second, 20), (second, 21)):
        guest.read(tag)
    controller.take()
    return pair, controller, first, second


def sectors(letters: str) -> bytes:
    """A sector of each letter."""
    return b"".join(letter.encode() * 512 for letter in letters)


@pytest.mark.parametrize("frames", [["abcd"], ["a", "bcd"], ["a", "b", "c", "d"], ["abc", "d"]])
def test_batch_of_several_guests_is_told_to_each_at_once(frames: list[str]) -> None:
    """Whatever frames the data came in; data is cut, not mixed up."""
    pair, controller, first, second = bench()

    controller.send(
        [Completion(command.id, Status.OK, 512) for command in controller.commands], [sectors(part) for part in frames]
    )

    assert first.rows == [([10, 11], sectors("ab"))]
    assert second.rows == [([20, 21], sectors("cd"))]
    assert (pair.in_flight, pair.completed, pair.ended) == (0, 5, {0, 1, 2})


def test_batch_that_alternates_keeps_each_guests_order() -> None:
    """Each change of guest begins a row."""
    _, controller, first, second = bench()
    a, b, c, d = controller.commands

    controller.send([Completion(command.id, Status.OK, 512) for command in (c, a, d, b)], [sectors("cadb")])

    assert first.rows == [([10], sectors("a")), ([11], sectors("b"))]
    assert second.rows == [([20], sectors("c")), ([21], sectors("d"))]


def test_batch_with_one_that_failed_is_told_one_by_one() -> None:
    """To all of its guests."""
    _, controller, first, second = bench()
    statuses = (Status.OK, Status.OK, Status.OK, Status.MEDIUM_ERROR)
    pairs = zip(controller.commands, statuses, (512, 512, 512, 0), strict=True)

    controller.send([Completion(command.id, status, length) for command, status, length in pairs], [sectors("abc")])

    assert (first.rows, second.rows) == ([], [])
    assert second.single == [(20, Status.OK), (21, Status.MEDIUM_ERROR)]


def test_batch_with_a_guest_that_takes_no_batches_is_told_one_by_one() -> None:
    """Nothing was taken before that was known."""
    _, controller, first, second = bench(batches=False)

    controller.send([Completion(c.id, Status.OK, 512) for c in controller.commands], [sectors("abcd")])

    assert [tag for tag, _ in first.single] == [10, 11]
    assert [tag for tag, _ in second.single] == [20, 21]


def test_requests_of_each_guest_in_flight_are_counted_off_by_row() -> None:
    """What the mux knows of each guest's share."""
    pair, controller, _, _ = bench()

    controller.send([Completion(c.id, Status.OK, 512) for c in controller.commands[1:]], [sectors("bcd")])

    assert [pair.queue.entry(guest).in_flight for guest in (1, 2)] == [1, 0]
