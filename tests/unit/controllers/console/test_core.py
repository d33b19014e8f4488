"""The console controller's core, event by event."""

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
from iovirt_dist.controllers.console.config import MAX_TERMINALS
from iovirt_dist.controllers.console.core import (
    INPUT_BYTES,
    MAX_PARKED,
    AcceptInput,
    CloseTerminal,
    ConsoleAction,
    ConsoleController,
    InputArrived,
    OpenTerminal,
    TerminalOpened,
    TerminalsChanged,
    TerminalWritten,
    WriteTerminal,
)
from iovirt_dist.controllers.console.written import MAX_PARTS, Part, Written, owner_of
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status, UnitIdentity


def _id(sequence: int) -> bytes:
    return RequestId(1, 0, sequence).pack()


def _identify(core: ConsoleController, sequence: int, name: bytes) -> list[ConsoleAction]:
    command = Command(_id(sequence), Opcode.IDENTIFY, length=len(name))
    return core.handle(CommandsSubmitted(1, [command], [name]), 0)


def _transmit(core: ConsoleController, *texts: tuple[int, int, bytes], pair: int = 1) -> list[ConsoleAction]:
    """Transmit (sequence, terminal, data) in one batch."""
    commands = [Command(_id(sequence), Opcode.CONSOLE_TRANSMIT, unit, 0, len(data)) for sequence, unit, data in texts]
    return core.handle(CommandsSubmitted(pair, commands, [data for _, _, data in texts]), 0)


def _receive(core: ConsoleController, *sequences: int, length: int = 100, pair: int = 1) -> list[ConsoleAction]:
    commands = [Command(_id(sequence), Opcode.CONSOLE_RECEIVE, 0, 0, length) for sequence in sequences]
    return core.handle(CommandsSubmitted(pair, commands, []), 0)


def _writes(actions: list[ConsoleAction]) -> list[WriteTerminal]:
    return [action for action in actions if isinstance(action, WriteTerminal)]


def _reopened(owner: bytes, **done: int) -> ConsoleController:
    """A new life with terminal alice open, in whose log these are: names ``id1``, ``id2``, ... by bytes."""
    core = ConsoleController(["alice"])
    core.handle(QueuePairOpened(1, "hv", resumed=False, epoch=7), 0)
    _identify(core, 1000, b"alice")
    core.handle(TerminalOpened(0, 0, Written(owner, {_id(int(name[2:])): size for name, size in done.items()})), 0)
    return core


def _completed(*sequences: int, status: Status = Status.OK) -> CompleteCommands:
    return CompleteCommands(1, [Completion(_id(sequence), status) for sequence in sequences], [])


def _received(sequence: int, data: bytes, pair: int = 1) -> CompleteCommands:
    return CompleteCommands(pair, [Completion(_id(sequence), Status.OK, len(data))], [data])


def _core(*names: bytes) -> ConsoleController:
    """A core with queue pair 1 open and these terminals open, numbered in this order."""
    core = ConsoleController(["alice", "bob", "web-*"])
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    for number, name in enumerate(names):
        _identify(core, 1000 + number, name)
        core.handle(TerminalOpened(number, 0), 0)
    return core


def test_identify_opens_the_terminal_and_completes_when_it_is_open() -> None:
    """Number and identity come once there is something to write to; input is welcome from then on."""
    core = _core()

    asked = _identify(core, 1, b"alice")
    opened = core.handle(TerminalOpened(0, 0), 0)
    again = _identify(core, 2, b"alice")

    identity = UnitIdentity(0, 1, False, "alice").pack()
    assert asked == [OpenTerminal(0, "alice")]
    assert opened == [
        CompleteCommands(1, [Completion(_id(1), Status.OK, len(identity), 0)], [identity]),
        AcceptInput(0, INPUT_BYTES),
    ]
    assert again == [CompleteCommands(1, [Completion(_id(2), Status.OK, len(identity), 0)], [identity])]


def test_identify_twice_while_opening_opens_once() -> None:
    """Both requests complete together."""
    core = _core()
    _identify(core, 1, b"alice")

    assert _identify(core, 2, b"alice") == []
    (completions, _) = core.handle(TerminalOpened(0, 0), 0)
    assert isinstance(completions, CompleteCommands)
    assert [completion.id for completion in completions.completions] == [_id(1), _id(2)]


@pytest.mark.parametrize("name", [b"carol", b"", b"\xff", b"web-/../x", b"web-\n", b"web-\0", b"web-" + b"x" * 61])
def test_identify_of_a_name_that_may_not_be_is_an_unknown_unit(name: bytes) -> None:
    """Only configured names, and only what is fit for a file name."""
    assert _identify(_core(), 1, name) == [_completed(1, status=Status.UNKNOWN_UNIT)]


def test_identify_of_a_name_that_matches_a_pattern_opens_it() -> None:
    """Replicas of a guest need not be listed one by one."""
    assert _identify(_core(b"alice"), 1, b"web-17") == [OpenTerminal(1, "web-17")]


def test_terminal_that_cannot_be_opened_is_a_medium_error_and_may_be_tried_again() -> None:
    """The next IDENTIFY opens it anew under the same number."""
    core = _core()
    _identify(core, 1, b"alice")

    failed = core.handle(TerminalOpened(0, errno.ENOSPC), 0)
    using = _transmit(core, (2, 0, b"x"))
    again = _identify(core, 3, b"alice")

    assert failed == [_completed(1, status=Status.MEDIUM_ERROR)]
    assert using == [_completed(2, status=Status.UNKNOWN_UNIT)]
    assert again == [OpenTerminal(0, "alice")]


def test_transmits_of_one_batch_are_one_write_per_terminal() -> None:
    """They complete when the terminal has taken them."""
    core = _core(b"alice", b"bob")

    written = _transmit(core, (1, 0, b"he"), (2, 1, b"hi"), (3, 0, b"llo"))
    completed = [*core.handle(TerminalWritten(0, 0), 0), *core.handle(TerminalWritten(1, 0), 0)]

    assert [(write.terminal, write.data) for write in _writes(written)] == [(0, b"hello"), (1, b"hi")]
    assert [write.parts for write in _writes(written)] == [
        (Part(_id(1), 0, 2), Part(_id(3), 0, 3)),
        (Part(_id(2), 0, 2),),
    ]
    assert completed == [_completed(1, 3), _completed(2)]


def test_writes_under_way_complete_in_their_order() -> None:
    """Each outcome belongs to the oldest write."""
    core = _core(b"alice")
    _transmit(core, (1, 0, b"a"))
    _transmit(core, (2, 0, b"b"))

    assert core.handle(TerminalWritten(0, errno.ENOSPC), 0) == [_completed(1, status=Status.MEDIUM_ERROR)]
    assert core.handle(TerminalWritten(0, 0), 0) == [_completed(2)]
    assert core.handle(TerminalWritten(0, 0), 0) == []


def test_transmit_submitted_again_is_written_once() -> None:
    """A line that was printed is not printed again."""
    core = _core(b"alice")
    _transmit(core, (1, 0, b"once"))

    while_writing = _transmit(core, (1, 0, b"once"))
    core.handle(TerminalWritten(0, 0), 0)
    after = _transmit(core, (1, 0, b"once"))

    assert while_writing == []
    assert after == [_completed(1)]


@pytest.mark.parametrize(
    ("command", "payload", "status"),
    [
        (Command(_id(1), Opcode.CONSOLE_TRANSMIT, 0, 0, 3), [b"four"], Status.BAD_LENGTH),
        (Command(_id(1), Opcode.CONSOLE_TRANSMIT, 0, 0, 0), [b""], Status.BAD_LENGTH),
        (Command(_id(1), Opcode.CONSOLE_TRANSMIT, 7, 0, 1), [b"x"], Status.UNKNOWN_UNIT),
        (Command(_id(1), Opcode.CONSOLE_RECEIVE, 0, 0, 0), [], Status.BAD_LENGTH),
        (Command(_id(1), Opcode.CONSOLE_RECEIVE, 0, 0, (1 << 64) - 1), [], Status.BAD_LENGTH),
        (Command(_id(1), Opcode.CONSOLE_RECEIVE, 0xFFFF_FFFF, 0, 9), [], Status.UNKNOWN_UNIT),
        (Command(_id(1), Opcode.READ, 0, 0, 512), [], Status.UNKNOWN_OPCODE),
        (Command(_id(1), Opcode.WRITE, 0, 0, 1), [b"x"], Status.UNKNOWN_OPCODE),
    ],
)
def test_command_that_cannot_be_done_gets_its_status(command: Command, payload: list[bytes], status: Status) -> None:
    """Lengths, units and opcodes are checked."""
    core = _core(b"alice")

    assert core.handle(CommandsSubmitted(1, [command], [*payload]), 0) == [_completed(1, status=status)]


def test_receive_waits_for_input() -> None:
    """It is parked, and completes with what was typed; as much is welcome again."""
    core = _core(b"alice")

    parked = _receive(core, 1)
    arrived = core.handle(InputArrived(0, b"ls\n"), 0)

    assert parked == []
    assert arrived == [_received(1, b"ls\n"), AcceptInput(0, INPUT_BYTES)]


def test_input_waits_for_receives_and_is_given_out_in_pieces() -> None:
    """At most `length` bytes each, in order, nothing lost."""
    core = _core(b"alice")

    kept = core.handle(InputArrived(0, b"abcdef"), 0)
    first = _receive(core, 1, length=4)
    second = _receive(core, 2, length=4)

    assert kept == []
    assert first == [_received(1, b"abcd"), AcceptInput(0, INPUT_BYTES - 2)]
    assert second == [_received(2, b"ef"), AcceptInput(0, INPUT_BYTES)]


def test_input_is_bounded_and_held_back() -> None:
    """A full buffer welcomes nothing; a terminal that delivers all the same loses what does not fit."""
    core = _core(b"alice")
    core.handle(InputArrived(0, b"x" * INPUT_BYTES), 0)

    assert core.handle(InputArrived(0, b"more"), 0) == []
    assert core.overrun_bytes == 4
    assert _receive(core, 1, length=INPUT_BYTES) == [_received(1, b"x" * INPUT_BYTES), AcceptInput(0, INPUT_BYTES)]


def test_receives_parked_beyond_the_bound_are_refused() -> None:
    """QUEUE_FULL, and the same id may be submitted again."""
    core = _core(b"alice")
    _receive(core, *range(1, MAX_PARKED + 1))

    refused = _receive(core, 50)
    core.handle(InputArrived(0, b"a"), 0)
    accepted = _receive(core, 50)

    assert refused == [_completed(50, status=Status.QUEUE_FULL)]
    assert accepted == []


def test_receive_submitted_again_after_it_completed_gets_the_same_input() -> None:
    """A completion that was lost on the way loses no keys."""
    core = _core(b"alice")
    _receive(core, 1)
    core.handle(InputArrived(0, b"key"), 0)
    core.handle(InputArrived(0, b"next"), 0)

    assert _receive(core, 1) == [_received(1, b"key")]


def test_input_for_a_closed_pair_waits_until_it_is_back() -> None:
    """The parked receive of a lost peer takes nothing; it is served after the session resumes."""
    core = _core(b"alice")
    _receive(core, 1)
    core.handle(QueuePairClosed(1), 0)

    while_lost = core.handle(InputArrived(0, b"key"), 0)
    back = core.handle(QueuePairOpened(2, "hv", resumed=True), 0)

    assert while_lost == []
    assert back == [_received(1, b"key", pair=2), AcceptInput(0, INPUT_BYTES)]


def test_input_passes_a_closed_pair_s_receive_to_an_open_one() -> None:
    """Another hypervisor on the same terminal is not kept waiting, and the order of the rest stays."""
    core = _core(b"alice")
    core.handle(QueuePairOpened(2, "hv2", resumed=False), 0)
    _receive(core, 1, 2, length=1)
    _receive(core, 3, pair=2, length=1)
    core.handle(QueuePairClosed(1), 0)

    first = core.handle(InputArrived(0, b"abc"), 0)
    back = core.handle(QueuePairOpened(3, "hv", resumed=True), 0)

    assert first == [_received(3, b"a", pair=2), AcceptInput(0, INPUT_BYTES - 2)]
    assert back == [
        CompleteCommands(3, [Completion(_id(1), Status.OK, 1), Completion(_id(2), Status.OK, 1)], [b"bc"]),
        AcceptInput(0, INPUT_BYTES),
    ]


def test_receive_of_a_life_that_is_over_is_forgotten() -> None:
    """Input goes to the receive that the peer's new life parks; the old ones take up no place."""
    core = _core(b"alice")
    _receive(core, *range(1, MAX_PARKED + 1))
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)

    kept = core.handle(InputArrived(0, b"key"), 0)

    assert kept == []
    assert _receive(core, 1) == [_received(1, b"key"), AcceptInput(0, INPUT_BYTES)]


def test_events_that_mean_nothing_change_nothing() -> None:
    """A timer, a stranger's commands."""
    core = _core(b"alice")

    assert core.handle(TimerFired(), 0) == []
    assert _transmit(core, (1, 0, b"x"), pair=9) == []
    assert core.deadline_ns() is None
    assert core.terminals == ("alice",)


def test_terminals_of_guests_that_are_gone_are_closed() -> None:
    """What is parked there ends, input that nobody took is dropped; the others go on."""
    core = _core(b"alice", b"bob")
    _receive(core, 1)
    core.handle(InputArrived(1, b"for bob"), 0)

    changed = core.handle(TerminalsChanged(("bob",)), 0)
    refused = _identify(core, 2, b"alice")

    assert changed == [_completed(1, status=Status.UNKNOWN_UNIT), CloseTerminal(0)]
    assert refused == [_completed(2, status=Status.UNKNOWN_UNIT)]
    assert core.handle(TerminalsChanged(("bob",)), 0) == []


def test_terminal_that_comes_again_has_its_number_and_is_opened_anew() -> None:
    """A thousand times and more: numbers are not used up."""
    core = _core(b"alice")

    for _ in range(MAX_TERMINALS + 1):
        core.handle(TerminalsChanged(()), 0)
        core.handle(TerminalsChanged(("alice",)), 0)
        asked = _identify(core, 1, b"alice")
        core.handle(TerminalOpened(0, 0), 0)

    assert asked == [OpenTerminal(0, "alice")]
    assert core.terminals == ("alice",)


def test_transmit_that_a_former_life_wrote_is_done() -> None:
    """Its completion was lost; another one is written."""
    core = _reopened(owner_of("hv", 7), id1=5, id2=3)

    actions = _transmit(core, (1, 0, b"hello"), (2, 0, b"you"), (3, 0, b"new"))

    assert actions[0] == _completed(1, 2)
    assert [write.data for write in _writes(actions)] == [b"new"]


def test_transmit_that_a_former_life_wrote_in_part_is_continued() -> None:
    """And should this life end in it, too, the next one knows where."""
    core = _reopened(owner_of("hv", 7), id1=2, id2=0)

    actions = _transmit(core, (1, 0, b"hello"), (2, 0, b"you"))

    (write,) = _writes(actions)
    assert (write.data, write.owner) == (b"lloyou", owner_of("hv", 7))
    assert write.parts == (Part(_id(1), 2, 3), Part(_id(2), 0, 3))
    assert core.handle(TerminalWritten(0, 0), 0) == [_completed(1, 2)]


@pytest.mark.parametrize("owner", [owner_of("hv", 6), owner_of("other", 7), b""])
def test_ids_of_another_life_mean_nothing(owner: bytes) -> None:
    """Numbers begin again with each life of a hypervisor."""
    core = _reopened(owner, id1=5)

    assert [write.data for write in _writes(_transmit(core, (1, 0, b"hello")))] == [b"hello"]


def test_transmits_beyond_what_a_record_holds_are_several_writes() -> None:
    """In order, each told by itself."""
    core = _core(b"alice")

    writes = _writes(_transmit(core, *[(sequence, 0, b"x") for sequence in range(1, MAX_PARTS + 3)]))

    assert [len(write.data) for write in writes] == [MAX_PARTS, 2]
    assert core.handle(TerminalWritten(0, 0), 0) == [_completed(*range(1, MAX_PARTS + 1))]
    assert core.handle(TerminalWritten(0, 0), 0) == [_completed(MAX_PARTS + 1, MAX_PARTS + 2)]


def test_terminal_that_comes_again_knows_nothing_of_the_guest_before() -> None:
    """Neither its receives, which would take what is typed, nor input that was for it."""
    core = _core(b"alice")
    core.handle(InputArrived(0, b"early"), 0)
    core.handle(TerminalsChanged(()), 0)
    core.handle(TerminalsChanged(("alice",)), 0)
    _identify(core, 1, b"alice")
    core.handle(TerminalOpened(0, 0), 0)
    _receive(core, 2)
    core.handle(TerminalsChanged(()), 0)
    core.handle(TerminalsChanged(("alice",)), 0)
    _identify(core, 3, b"alice")
    core.handle(TerminalOpened(0, 0), 0)

    asked = _receive(core, 4)
    typed = core.handle(InputArrived(0, b"late"), 0)

    assert asked == []
    assert typed[0] == _received(4, b"late")
