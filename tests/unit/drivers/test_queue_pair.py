"""A hypervisor's end of a queue pair."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.queue_pair import MAX_IN_FLIGHT, QueuePair
from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES
from iovirt_dist.wire.commands import (
    MAX_BATCH,
    MAX_DATA_BYTES,
    Completion,
    Opcode,
    Status,
    pack_completions,
)
from iovirt_dist.wire.messages import Complete
from tests.unit.drivers.support import DISK, Controller, Outcomes, opened, sequence

STRAY = RequestId(9, 9, 9).pack()
"""Nobody's."""


def test_requests_wait_for_a_quarter_of_what_may_be_in_flight() -> None:
    """A message for each that is free would cost more than the requests."""
    pair, controller, outcomes = opened(credits=16)
    for tag in range(20):
        outcomes.offer(pair, tag)

    taken = [controller.take()]
    for command in list(controller.commands[:4]):
        taken.append(controller.take())
        controller.complete(command, data=b"x" * 512)
    taken.append(controller.take())

    assert taken == [[16], [], [], [], [], [4]]


def test_requests_behind_parked_ones_leave_however_few_may() -> None:
    """Receives of many terminals end when somebody types: nothing may wait for them."""
    pair = QueuePair("tty0")
    pair.use("root")
    controller = Controller(pair, {"root": DISK}, 16)
    controller.open()
    outcomes = Outcomes()
    for tag in range(15):
        outcomes.offer(pair, tag)

    parked = controller.take()
    outcomes.offer(pair, 15)

    assert (parked, controller.take()) == ([15], [1])


def test_requests_leave_in_batches_as_far_as_credits_go() -> None:
    """The rest follows as completions come."""
    pair, controller, outcomes = opened(credits=3)
    for tag in range(5):
        outcomes.offer(pair, tag)

    first = controller.take()
    controller.complete(controller.commands[0], data=b"x" * 512)
    second = controller.take()

    assert (first, second) == ([3], [1])
    assert pair.in_flight == 3
    assert outcomes.told == [(0, Status.OK, b"x" * 512)]


def test_batch_has_at_most_as_many_commands_as_a_message_may() -> None:
    """Whatever the credits; and whatever they are, there are at most so many in flight."""
    pair, controller, outcomes = opened(credits=60_000)
    for tag in range(4000):
        outcomes.offer(pair, tag)

    assert controller.take() == [MAX_BATCH, MAX_BATCH]
    assert pair.in_flight == MAX_IN_FLIGHT


def test_batch_has_at_most_as_many_bytes_as_a_message_may() -> None:
    """Writes of 4 MiB: three and a little more fit, the fifth goes with the next message."""
    pair, controller, outcomes = opened()
    quarter = bytes(MAX_PAYLOAD_BYTES // 4)
    for tag in range(5):
        outcomes.offer(pair, tag, Opcode.WRITE, data=quarter)

    assert controller.take() == [4, 1]
    assert [sequence(command) for command in controller.commands] == [1, 2, 3, 4, 5]


def test_full_queue_refuses() -> None:
    """What waits for an identification is bounded, and so is what waits for its turn."""
    pair = QueuePair("disk0", MultiQueue(bound=2))
    pair.use("root")
    controller = Controller(pair, {"root": DISK})
    pair.opened(8, resumed=False)
    outcomes = Outcomes()

    first = pair.take_batch(0)  # IDENTIFY is under way
    queued = [outcomes.offer(pair, 0), outcomes.offer(pair, 1)]
    parked = pair.take_batch(0)

    assert first is not None
    assert queued == [True, True]
    assert parked is None
    assert [outcomes.offer(pair, 2), outcomes.offer(pair, 3), outcomes.offer(pair, 4)] == [True, True, False]
    assert controller.commands == []


def test_refused_request_is_told_by_settle_only() -> None:
    """A device is never called back from inside of its own submit."""
    pair, controller, outcomes = opened(bound=1)
    outcomes.offer(pair, 0)

    outcomes.queue(pair).submit(1, Opcode.READ, 0, 512)
    before = list(outcomes.told)
    controller.take()
    pending = pair.pending
    pair.settle(7)

    assert (before, pending) == ([], True)
    assert outcomes.told == [(1, Status.QUEUE_FULL, b"")]
    assert not pair.pending


def test_restarted_controller_gets_everything_in_flight_again_under_the_same_ids() -> None:
    """In their order, before what waited; units may have other numbers now."""
    pair, controller, outcomes = opened(credits=2)
    for tag in range(3):
        outcomes.offer(pair, tag)
    controller.take()
    ids = [command.id for command in controller.commands]

    pair.lost()
    while_lost = pair.take_batch(0)
    again = Controller(pair, {"new": DISK, "root": DISK}, credits=3)
    again.open()

    assert while_lost is None
    assert [command.id for command in again.commands][:2] == ids
    assert [sequence(command) for command in again.commands] == [1, 2, 3]
    assert {command.unit for command in again.commands} == {1}
    assert pair.resubmitted == 2


def test_controller_that_was_out_of_reach_gets_nothing_twice() -> None:
    """A resumed session has lost nothing."""
    pair, controller, outcomes = opened()
    outcomes.offer(pair, 1)
    controller.take()

    pair.lost()
    controller.open(resumed=True)

    assert len(controller.commands) == 1
    assert (pair.in_flight, pair.resubmitted) == (1, 0)


def test_completion_of_nothing_is_ignored() -> None:
    """Unknown, or doubled."""
    pair, controller, outcomes = opened()
    outcomes.offer(pair, 1)
    controller.take()
    command = controller.commands[0]

    controller.send([Completion(STRAY, Status.OK)])
    controller.complete(command)
    controller.complete(command)

    assert outcomes.told == [(1, Status.OK, b"")]
    assert pair.completed == 2  # with the identification


def test_malformed_batch_takes_nothing() -> None:
    """Not even its first, good entry."""
    pair, controller, outcomes = opened()
    outcomes.offer(pair, 1)
    controller.take()

    with pytest.raises(DecodeError):
        pair.complete(Complete(5, pack_completions([Completion(controller.commands[0].id, Status.OK)]) + b"x"), [], 0)

    assert outcomes.told == []
    assert pair.in_flight == 1


def test_interrupt_count_never_falls() -> None:
    """A late message says nothing."""
    pair, controller, _ = opened()
    pair.complete(Complete(9, pack_completions([Completion(STRAY, Status.OK)])), [], 0)

    controller.send([Completion(STRAY, Status.OK)])

    assert pair.interrupts == 9


def test_forgotten_guest_is_told_nothing_and_others_everything() -> None:
    """Waiting, parked, refused and in flight."""
    pair, controller, outcomes = opened(credits=2, bound=1)
    for tag, guest in ((1, 5), (2, 6)):
        outcomes.offer(pair, tag, guest=guest)
        controller.take()
    outcomes.offer(pair, 3, guest=5)
    outcomes.queue(pair, 5).submit(4, Opcode.READ, 0, 512)
    outcomes.queue(pair, 6).submit(5, Opcode.READ, 0, 512)
    outcomes.queue(pair, 6).submit(6, Opcode.READ, 0, 512)

    pair.forget(5)
    pair.settle(0)
    for command in list(controller.commands):
        controller.complete(command)

    assert outcomes.told == [(6, Status.QUEUE_FULL, b""), (2, Status.OK, b"")]
    assert controller.take() == [1]
    assert pair.in_flight == 1


def test_guest_fills_its_own_queue_only() -> None:
    """One that floods is refused, parked requests included; another one is not."""
    pair = QueuePair("disk0", MultiQueue(bound=1))
    pair.use("root")
    pair.opened(8, resumed=False)
    pair.take_batch(0)
    outcomes = Outcomes()

    flood = []
    for tag in range(4):
        flood.append(outcomes.offer(pair, tag, guest=5))
        pair.take_batch(0)
    pair.settle(0)
    other = outcomes.offer(pair, 9, guest=6)

    assert flood == [True] * 4
    assert outcomes.told == [(tag, Status.QUEUE_FULL, b"") for tag in (1, 2, 3)]
    assert other


def test_requests_of_a_guest_in_flight_are_counted_until_they_end() -> None:
    """Taken, parked, refused for their length, completed, forgotten."""
    pair, controller, outcomes = opened()
    entry = pair.queue.entry(5)
    seen = []

    outcomes.offer(pair, 1)
    outcomes.offer(pair, 2, unit="unknown")
    outcomes.offer(pair, 3, Opcode.WRITE, data=bytes(MAX_DATA_BYTES + 1))
    controller.take()
    seen.append(entry.in_flight)
    controller.complete(controller.commands[0], data=bytes(512))
    seen.append(entry.in_flight)
    pair.forget(5)
    seen.append(entry.in_flight)

    assert seen == [2, 1, 0]
