"""The guest's side of the guest protocol."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.core import (
    CompleteTrap,
    FramesReceived,
    GuestCore,
    Note,
    PowerOff,
    PowerOn,
    Send,
    SetLines,
    Started,
    StateChanged,
    StopRequested,
    TimerFired,
)
from iovirt_dist.wire.codec import decode
from iovirt_dist.wire.messages import (
    GuestState,
    Hello,
    Interrupt,
    Power,
    PowerAction,
    Report,
    Role,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.session import SessionConfig
from tests.unit.guest.core_bench import MS, SECOND, Bench, connected, raised


def test_start_says_hello_and_an_open_session_powers_on() -> None:
    """With the lines low: the machine's devices are new."""
    bench = Bench()

    told = bench.do(Started())

    assert told == [SetLines(0), PowerOn("connected to hypervisor hv")]
    assert bench.core.opener.open


def test_start_without_a_hypervisor_waits_and_says_hello_again() -> None:
    """And says in its state for whom."""
    core = GuestCore(SessionConfig(Role.GUEST, "alice", 3), "hv")

    first = core.handle(Started(), 0)
    again = core.handle(TimerFired(), SECOND)

    bodies = [decode(a.frames)[0].body for a in (*first, *again) if isinstance(a, Send)]
    assert [type(body) for body in bodies] == [Hello, Hello]
    assert (core.state, core.reason) == (GuestState.STARTING, "waiting for hypervisor hv")


def test_traps_are_numbered_from_1_whatever_their_kind() -> None:
    """The number is the causal id of all that follows."""
    bench = connected()

    for kind in (TrapKind.PORT_OUT, TrapKind.MMIO_STORE, TrapKind.MMIO_LOAD):
        bench.do(raised(kind))

    assert [body.number for body in bench.bodies(Trap) if isinstance(body, Trap)] == [1, 2, 3]


def test_string_output_travels_as_payload() -> None:
    """Not inside of the message."""
    bench = connected()

    bench.do(raised(TrapKind.PORT_OUT, data=b"abcd", count=4))

    assert bench.messages[-1] == (Trap(1, TrapKind.PORT_OUT, 0x3F8, 1, 4, 0, 0), [b"abcd"])


def test_reply_completes_the_trap_that_waits() -> None:
    """With value, data and fault."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_IN, count=4))

    assert bench.say(TrapReply(1, 7, 13, 2), b"data") == [CompleteTrap(7, b"data", 13, 2)]


@pytest.mark.parametrize("number", [0, 1, 3, 2**40])
def test_reply_to_any_other_trap_is_ignored(number: int) -> None:
    """An old one, one to come, none."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_IN))
    bench.do(raised(TrapKind.PORT_IN))

    assert bench.say(TrapReply(number, 7)) == []


def test_reply_completes_once() -> None:
    """A second one finds nobody waiting."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_IN))
    bench.say(TrapReply(1, 7))

    assert bench.say(TrapReply(1, 8)) == []


def test_lines_on_a_reply_are_set_before_the_instruction_completes() -> None:
    """The guest knows them before its next instruction."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_OUT))

    assert bench.say(TrapReply(1, 0, -1, 0, (0, 1, 9, 3))) == [
        SetLines(1 | 1 << 9),
        CompleteTrap(0, b"", -1, 0),
    ]


def test_line_count_that_is_not_newer_says_nothing() -> None:
    """A late message must not lower a line that has risen since."""
    bench = connected()
    bench.say(Interrupt(0, 3))

    assert bench.say(Interrupt(0, 2)) == [SetLines(1)]
    assert bench.say(Interrupt(0, 3)) == [SetLines(1)]
    assert bench.say(Interrupt(0, 6)) == [SetLines(0)]


@pytest.mark.parametrize("lines", [(1 << 62, 1), (64, 1), (5,), (1, 1, 2)])
def test_lines_that_no_cpu_has_or_odd_pairs_break_nothing(lines: tuple[int, ...]) -> None:
    """A number of 62 bits must not become an integer of 2**62 bits."""
    bench = connected()

    bench.say(TrapReply(99, 0, -1, 0, lines))

    assert bench.core.lines in (0, 2)


def test_reset_voids_the_trap_that_waits_and_the_line_counts() -> None:
    """The machine's devices are new, and count from 0 again."""
    bench = connected()
    bench.say(Interrupt(0, 5))
    bench.do(raised(TrapKind.PORT_OUT))

    told = bench.say(Power(PowerAction.RESET, "port 92h"))

    assert told == [SetLines(0), PowerOn("reset by port 92h")]
    assert bench.say(TrapReply(1, 0)) == []
    assert bench.say(Interrupt(0, 1)) == [SetLines(1)]


def test_power_off_stops_the_machine() -> None:
    """And says who asked."""
    assert connected().say(Power(PowerAction.POWER_OFF, "test device")) == [PowerOff("powered off by test device")]


def test_hypervisor_that_is_back_in_the_same_life_changes_nothing() -> None:
    """The trap that waited is still answered."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_IN))

    told = bench.tick(3 * SECOND)

    assert told == [
        Note("hypervisor hv lost: silent for 3000 ms; waiting for it"),
        Note("hypervisor hv is back"),
    ]
    assert bench.say(TrapReply(1, 7)) == [CompleteTrap(7, b"", -1, 0)]


def test_new_life_of_the_hypervisor_is_a_power_on() -> None:
    """It has lost our devices; lines and counts begin anew, and the trap that waited is void."""
    bench = connected()
    bench.say(Interrupt(0, 5))
    bench.do(raised(TrapKind.PORT_IN))
    bench.new_hypervisor(2)

    told = [action for _ in range(5) for action in bench.tick(3 * SECOND)]

    assert [action for action in told if isinstance(action, (SetLines, PowerOn))] == [
        SetLines(0),
        PowerOn("connected to hypervisor hv"),
    ]
    assert bench.core.counts.traps == [0] * 8
    assert bench.say(TrapReply(1, 7)) == []


def test_report_comes_at_most_twice_a_second_and_only_after_a_change() -> None:
    """With the state and counts of that moment."""
    bench = connected()
    bench.tick()
    bench.do(StateChanged(GuestState.RUNNING, "", 2, 1))
    bench.do(raised(TrapKind.PORT_OUT))
    bench.do(raised(TrapKind.PORT_IN))

    soon = list(bench.bodies(Report))
    bench.tick(600 * MS)
    later = list(bench.bodies(Report))
    bench.tick(600 * MS)

    assert [body.state for body in soon if isinstance(body, Report)] == [GuestState.STARTING]
    assert later[1:] == [Report(GuestState.RUNNING, "", (0, 1, 1, 0, 0, 0, 0, 0), 1, 1, 2, 1)]
    assert bench.bodies(Report) == later


def test_report_is_what_the_timer_is_for() -> None:
    """The deadline is not later than the report."""
    bench = connected()
    bench.tick()
    bench.do(raised(TrapKind.PORT_OUT))
    due_ns = bench.core.deadline_ns()

    assert due_ns is not None
    assert due_ns <= bench.now_ns + 500 * MS


def test_stop_reports_a_last_time_before_it_says_goodbye() -> None:
    """The hypervisor has the final counts."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_OUT))

    bench.do(StopRequested("shutting down"))

    last = bench.bodies(Report)[-1]
    assert isinstance(last, Report)
    assert last.traps[TrapKind.PORT_OUT] == 1
    assert not bench.core.opener.open


def test_window_that_is_full_powers_off_instead_of_raising() -> None:
    """A hypervisor that acknowledges nothing; the vCPU's side bounds its stores long before."""
    core = GuestCore(SessionConfig(Role.GUEST, "alice", 3, window=2), "hv")

    actions = [action for _ in range(3) for action in core.handle(raised(TrapKind.MMIO_STORE), 0)]

    assert [type(action) for action in actions] == [Send, Send, PowerOff]


def test_garbage_is_refused_and_noted() -> None:
    """Nothing else comes of it."""
    bench = connected()

    told = bench.do(FramesReceived([b"\xc1"]))

    assert told == [Note("message refused: not-msgpack")]
    assert bench.core.opener.rejects["not-msgpack"] == 1


def test_report_that_cannot_leave_is_not_due() -> None:
    """While there is no hypervisor the timer is the session's: an overdue report would fire it without end."""
    core = GuestCore(SessionConfig(Role.GUEST, "alice", 3), "hv")
    core.handle(Started(), 0)
    core.handle(StateChanged(GuestState.RUNNING, "", 0, 0), 0)

    due_ns = core.deadline_ns()
    core.handle(TimerFired(), due_ns or 0)
    again_ns = core.deadline_ns()

    assert due_ns is not None
    assert again_ns is not None
    assert 0 < due_ns < again_ns
