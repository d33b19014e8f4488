"""The entropy core: who gets how many random bytes, and when."""

from __future__ import annotations

import errno

import pytest

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    QueuePairClosed,
    QueuePairOpened,
    TimerFired,
)
from iovirt_dist.controllers.rng.core import (
    DRAW_BYTES,
    MAX_GET_BYTES,
    DrawEntropy,
    EntropyDrawn,
    RngAction,
    RngController,
)
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status, UnitIdentity

IDENTITY = UnitIdentity(0, 1, False, "entropy").pack()


def _id(sequence: int) -> bytes:
    return RequestId(1, 0, sequence).pack()


def _get(sequence: int, length: int = 16, unit: int = 0) -> Command:
    return Command(_id(sequence), Opcode.ENTROPY_GET, unit, 0, length)


def _core(*peers: str) -> RngController:
    """A core with queue pairs 1, 2, ... of these peers."""
    core = RngController()
    for number, peer in enumerate(peers or ("hv",), 1):
        core.handle(QueuePairOpened(number, peer, resumed=False), 0)
    return core


def _submit(core: RngController, *commands: Command, pair: int = 1, data: bytes | None = None) -> list[RngAction]:
    return core.handle(CommandsSubmitted(pair, list(commands), [] if data is None else [data]), 0)


def _done(actions: list[RngAction]) -> list[tuple[int, int]]:
    """Pair and sequence of what completes."""
    return [
        (action.pair, RequestId.unpack(completion.id).sequence)
        for action in actions
        if isinstance(action, CompleteCommands)
        for completion in action.completions
    ]


@pytest.mark.parametrize("name", [b"", b"entropy"])
def test_source_is_identified_by_its_name_or_by_none(name: bytes) -> None:
    """One unit of no size."""
    command = Command(_id(1), Opcode.IDENTIFY, 0, 0, len(name))

    actions = _submit(_core(), command, data=name)

    assert actions == [CompleteCommands(1, [Completion(_id(1), Status.OK, len(IDENTITY), 0)], [IDENTITY])]


def test_batch_is_one_draw_and_its_data_one_frame() -> None:
    """Each command gets what it asked for, in order."""
    core = _core()

    drawing = _submit(core, _get(1, 2), _get(2, 3))
    done = core.handle(EntropyDrawn(b"abcde"), 0)

    assert drawing == [DrawEntropy(5)]
    assert done == [
        CompleteCommands(1, [Completion(_id(1), Status.OK, 2), Completion(_id(2), Status.OK, 3)], [b"abcde"])
    ]
    assert core.bytes_given == 5


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (_get(1, 0), Status.BAD_LENGTH),
        (_get(1, unit=1), Status.UNKNOWN_UNIT),
        (Command(_id(1), Opcode.READ, 0, 0, 512), Status.UNKNOWN_OPCODE),
        (Command(_id(1), Opcode.IDENTIFY, 0, 0, 5), Status.UNKNOWN_UNIT),
    ],
)
def test_what_makes_no_sense_ends_with_its_status(command: Command, status: Status) -> None:
    """And draws nothing."""
    actions = _submit(_core(), command, data=b"other")

    assert actions == [CompleteCommands(1, [Completion(_id(1), status)], [])]


def test_command_for_too_much_gets_the_most_there_is() -> None:
    """Whatever the number says."""
    core = _core()

    assert _submit(core, _get(1, (1 << 64) - 1)) == [DrawEntropy(MAX_GET_BYTES)]


def test_commands_during_a_draw_wait_for_the_next() -> None:
    """One draw is under way at a time."""
    core = _core()
    _submit(core, _get(1))

    waiting = _submit(core, _get(2), _get(3))
    actions = core.handle(EntropyDrawn(bytes(16)), 0)

    assert waiting == []
    assert _done(actions) == [(1, 1)]
    assert core.deadline_ns() == 0
    assert core.handle(TimerFired(), 0) == [DrawEntropy(32)]
    assert core.deadline_ns() is None


def test_peer_that_asks_for_much_does_not_hold_another_up() -> None:
    """Its turn ends with its bytes; the other's small requests are in the first draw."""
    core = _core("greedy", "modest")
    _submit(core, _get(100))
    _submit(core, *[_get(n, MAX_GET_BYTES) for n in range(1, 33)], pair=1)
    _submit(core, _get(1), _get(2), pair=2)
    core.handle(EntropyDrawn(bytes(16)), 0)
    (draw,) = core.handle(TimerFired(), 0)

    assert isinstance(draw, DrawEntropy)
    assert draw.length <= DRAW_BYTES + MAX_GET_BYTES
    assert {(2, 1), (2, 2)} < set(_done(core.handle(EntropyDrawn(bytes(draw.length)), 0)))


def test_message_that_comes_between_two_draws_takes_part_in_the_next() -> None:
    """A peer with a full queue is not served to its end before others are heard."""
    core = _core("greedy", "modest")
    (draw,) = _submit(core, *[_get(n, MAX_GET_BYTES) for n in range(1, 65)], pair=1)
    assert isinstance(draw, DrawEntropy)
    core.handle(EntropyDrawn(bytes(draw.length)), 0)

    (small,) = _submit(core, _get(1, 32), pair=2)

    assert isinstance(small, DrawEntropy)
    assert (2, 1) in _done(core.handle(EntropyDrawn(bytes(small.length)), 0))


def test_endless_large_requests_leave_small_ones_their_share() -> None:
    """Each small request is in the next draw or the one after it, and who asks for much gets the rest."""
    core = _core("greedy", "modest")
    greedy = modest = draws = 0
    waiting: dict[int, int] = {}
    actions = _submit(core, *[_get(n, MAX_GET_BYTES) for n in range(1, 65)], pair=1)
    while draws < 60:
        if not waiting:
            waiting[modest + 1] = draws
            actions += _submit(core, _get(modest + 1, 32), pair=2)
        (draw,) = [action for action in actions if isinstance(action, DrawEntropy)] or core.handle(TimerFired(), 0)
        assert isinstance(draw, DrawEntropy)
        draws += 1
        actions = core.handle(EntropyDrawn(bytes(draw.length)), 0)
        done = _done(actions)
        for _, sequence in [entry for entry in done if entry[0] == 2]:
            assert draws - waiting.pop(sequence) <= 2
            modest += 1
        for _, sequence in [entry for entry in done if entry[0] == 1]:
            greedy += 1
            actions = [*actions, *_submit(core, _get(sequence + 64, MAX_GET_BYTES), pair=1)]

    assert modest >= 29
    assert greedy >= 59 * 3


def test_source_that_gives_less_leaves_the_last_ones_with_less_or_an_error() -> None:
    """At least one byte is success."""
    core = _core()
    _submit(core, _get(1, 4), _get(2, 4), _get(3, 4))

    (action,) = core.handle(EntropyDrawn(b"abcde"), 0)

    assert isinstance(action, CompleteCommands)
    assert action.completions == [
        Completion(_id(1), Status.OK, 4),
        Completion(_id(2), Status.OK, 1),
        Completion(_id(3), Status.MEDIUM_ERROR),
    ]


def test_source_that_fails_ends_the_draw_and_the_next_is_tried() -> None:
    """With MEDIUM_ERROR."""
    core = _core()
    _submit(core, _get(1))

    failed = core.handle(EntropyDrawn(b"", errno.EIO), 0)

    assert failed == [CompleteCommands(1, [Completion(_id(1), Status.MEDIUM_ERROR)], [])]
    assert _submit(core, _get(2)) == [DrawEntropy(16)]
    assert core.errors == 1


def test_bytes_for_a_closed_pair_wait_for_its_peer() -> None:
    """They are sent when it comes back in the same life."""
    core = _core()
    _submit(core, _get(1, 2))
    core.handle(QueuePairClosed(1), 0)
    away = core.handle(EntropyDrawn(b"ab"), 0)

    back = core.handle(QueuePairOpened(2, "hv", resumed=True), 0)

    assert away == []
    assert back == [CompleteCommands(2, [Completion(_id(1), Status.OK, 2)], [b"ab"])]
