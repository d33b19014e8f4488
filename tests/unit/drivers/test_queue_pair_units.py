"""Units of a queue pair: who is behind a name, and what happens to those who used one that is gone."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.wire.commands import (
    COMMAND_BYTES,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    pack_completions,
    unpack_commands,
)
from iovirt_dist.wire.messages import Complete
from tests.unit.drivers.support import DISK, Controller, opened


def test_unit_is_identified_when_the_controller_comes() -> None:
    """And knows its number and size then."""
    pair = QueuePair("disk0")
    unit = pair.use("root")
    before = (unit.number, unit.identity)

    Controller(pair, {"other": DISK, "root": DISK}).open()

    assert before == (None, None)
    assert (unit.number, unit.identity, unit.problem) == (1, DISK, "")


def test_unit_that_is_used_later_is_identified_at_once() -> None:
    """The controller is there already."""
    pair, controller, _ = opened()
    controller.units["second"] = DISK

    unit = pair.use("second")
    controller.take()

    assert unit.number == 1


def test_restart_during_identification_identifies_once() -> None:
    """The old question is not asked in addition to the new one."""
    pair = QueuePair("disk0")
    pair.use("root")
    pair.opened(8, resumed=False)
    pair.opened(8, resumed=False)
    controller = Controller(pair, {"root": DISK})

    assert controller.take() == [1]


def test_unit_that_vanished_ends_requests_with_unknown_unit() -> None:
    """Those under way at the restart and later ones; the log says it once."""
    pair, controller, outcomes = opened()
    outcomes.offer(pair, 1)
    controller.take()

    Controller(pair, {}).open()
    pair.settle(0)
    outcomes.offer(pair, 2)
    pair.take_batch(0)
    pair.settle(0)

    assert outcomes.told == [(1, Status.UNKNOWN_UNIT, b""), (2, Status.UNKNOWN_UNIT, b"")]
    assert pair.notes == ["controller disk0 has no unit 'root' (unknown_unit); requests to it end with an error"]
    assert pair.in_flight == 0


def test_unit_that_comes_back_is_used_again() -> None:
    """A problem lasts as long as the controller's life that has it."""
    pair, _, outcomes = opened()
    Controller(pair, {}).open()
    controller = Controller(pair, {"root": DISK})

    controller.open()
    outcomes.offer(pair, 1)

    assert pair.units["root"].problem == ""
    assert controller.take() == [1]


def test_request_during_identification_waits_for_the_answer_whatever_the_last_life_said() -> None:
    """The unit may be back: nothing is refused before the controller has said so."""
    pair, _, outcomes = opened()
    Controller(pair, {}).open()
    pair.opened(8, resumed=False)
    outcomes.offer(pair, 1)

    batch = pair.take_batch(0)

    assert batch is not None
    assert len(batch[0].commands) == COMMAND_BYTES  # the question
    assert pair.refused == []


def test_unit_that_is_not_identified_yet_holds_nobody_else_up() -> None:
    """Its requests wait beside the queue and keep their order."""
    pair, _, outcomes = opened(credits=4)
    pair.use("slow")
    pair.take_batch(0)  # IDENTIFY of slow, which is not answered
    for tag in range(10):
        outcomes.offer(pair, tag, unit="slow")
    outcomes.offer(pair, 100)

    batch = pair.take_batch(0)

    assert batch is not None
    assert len(batch[0].commands) == COMMAND_BYTES


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"short", "bad-identity"),
        (UnitIdentity(1, 0, False, "").pack(), "blocks of 0 bytes"),
        (bytes(13) + b"\xff" * 20, "bad-identity"),
    ],
)
def test_identity_that_makes_no_sense_is_a_problem(answer: bytes, problem: str) -> None:
    """It raises nothing; the guest waits and the status says why."""
    pair = QueuePair("disk0")
    unit = pair.use("root")
    pair.opened(8, resumed=False)
    batch = pair.take_batch(0)
    assert batch is not None

    id_ = unpack_commands(batch[0].commands)[0].id
    pair.complete(Complete(1, pack_completions([Completion(id_, Status.OK, len(answer))])), [answer], 0)

    assert problem in unit.problem
    assert unit.number is None


def test_unit_with_a_problem_is_asked_for_again_once() -> None:
    """Not twice while the question is on its way, and not at all where there is no problem."""
    pair, controller, _ = opened()
    late = pair.use("late")
    controller.take()
    controller.units["late"] = DISK
    problem = late.problem

    pair.ask_again("late")
    pair.ask_again("late")
    pair.ask_again("root")
    asked = pair.take_batch(0)

    assert problem
    assert asked is not None
    assert [command.opcode for command in unpack_commands(asked[0].commands)] == [Opcode.IDENTIFY]


def test_unit_goes_with_its_last_holder_while_it_is_being_identified() -> None:
    """The late answer is nobody's."""
    pair, _, _ = opened()
    for _ in range(2):
        pair.hold("shared")
    pair.use("shared")
    submit = pair.take_batch(0)
    pair.let_go("shared")
    kept = "shared" in pair.units
    pair.let_go("shared")

    assert submit is not None
    (identify,) = unpack_commands(submit[0].commands)
    identity = DISK.pack()
    pair.complete(Complete(1, pack_completions([Completion(identify.id, Status.OK, len(identity), 0)])), [identity], 0)

    assert kept
    assert "shared" not in pair.units
    assert pair.in_flight == 0


def test_units_that_changed_are_identified_again_while_requests_go_on() -> None:
    """Once, however often the controller says so; what is told is noted."""
    pair, controller, outcomes = opened()
    controller.units["root"] = DISK._replace(size_bytes=DISK.size_bytes * 2)
    outcomes.offer(pair, 1)

    pair.ask_all_again()
    pair.ask_all_again()
    asked = controller.take()

    assert asked == [2]
    assert pair.units["root"].identity == controller.units["root"]
    assert [command.opcode for command in controller.commands] == [Opcode.READ]
    assert len(pair.notes) == 1


def test_request_to_a_unit_that_went_with_its_guest_is_not_submitted_to_the_next_life_of_the_controller() -> None:
    """There its old number may be another guest's unit."""
    pair, controller, outcomes = opened()
    pair.hold("root")
    pair.hold("other")
    outcomes.offer(pair, 1)
    controller.take()
    pair.forget(5)
    pair.let_go("root")

    again = Controller(pair, {"other": DISK})
    pair.use("other")
    again.open()
    again.take()
    pair.settle(0)

    assert again.commands == []
    assert pair.in_flight == 0
