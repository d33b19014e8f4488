"""System calls through the guest's core: programs, calls, replies."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.bus import SystemCallOutcome
from iovirt_dist.guest.core import CompleteCall, PowerOn, ProgramLoaded, SetLines, SystemCallRaised
from iovirt_dist.wire.messages import Power, PowerAction, Report, TrapKind, TrapReply
from iovirt_dist.wire.syscall_messages import (
    BAD_POINTER,
    Disposition,
    EffectKind,
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)
from tests.unit.guest.core_bench import MS, SECOND, connected, raised

WRITE = SystemCallRaised(0x1000, 4, (1, 0x8000, 5), (5,), b"hello")


def test_call_leaves_with_its_data_and_counts() -> None:
    """Numbered as any other trap."""
    bench = connected()
    bench.do(raised(TrapKind.PORT_OUT))

    bench.do(WRITE)

    assert bench.messages[-1] == (SystemCall(2, 0x1000, 4, (1, 0x8000, 5), (5,)), [b"hello"])
    assert bench.core.counts.traps[TrapKind.SYSTEM_CALL] == 1
    assert bench.core.counts.bytes_out == 1 + 5


def test_call_without_data_has_no_payload() -> None:
    """Most have none."""
    bench = connected()

    bench.do(SystemCallRaised(1, 3, (0, 0, 9), (BAD_POINTER,), b""))

    assert bench.messages == [(SystemCall(1, 1, 3, (0, 0, 9), (BAD_POINTER,)), [])]


@pytest.mark.parametrize("frames", [(b"abcdef",), (b"abc", b"def"), (b"a", b"", b"bcdef")])
def test_reply_lets_the_program_go_on_with_the_data_joined(frames: tuple[bytes, ...]) -> None:
    """In however many frames it came."""
    bench = connected()
    bench.do(WRITE)
    effects = ((EffectKind.MAP, 0x4000_0000, 4096, 3),)

    told = bench.say(SystemCallReply(1, Disposition.DONE, 6, (6,), effects), *frames)

    assert told == [CompleteCall(SystemCallOutcome(Disposition.DONE, 6, (6,), b"abcdef", effects))]
    assert bench.core.counts.bytes_in == 6


def test_lines_on_a_reply_are_set_before_the_program_goes_on() -> None:
    """As on any other reply."""
    bench = connected()
    bench.do(WRITE)

    told = bench.say(SystemCallReply(1, Disposition.PASS, lines=(0, 1)))

    assert told == [SetLines(1), CompleteCall(SystemCallOutcome(Disposition.PASS, 0, (), b"", ()))]


@pytest.mark.parametrize("number", [0, 2])
def test_reply_to_any_other_call_is_ignored(number: int) -> None:
    """An old one, one to come."""
    bench = connected()
    bench.do(WRITE)

    assert bench.say(SystemCallReply(number, Disposition.DONE)) == []


def test_reply_of_a_trap_does_not_complete_a_call_nor_the_other_way_round() -> None:
    """A hypervisor that mixes them up gets no answer of the wrong kind through to a CPU."""
    bench = connected()
    bench.do(WRITE)
    trap_reply = bench.say(TrapReply(1, 0))
    bench.do(raised(TrapKind.PORT_IN))
    call_reply = bench.say(SystemCallReply(2, Disposition.DONE))

    assert trap_reply == []
    assert call_reply == []


def test_program_is_announced_with_its_name_cut() -> None:
    """It is for people."""
    bench = connected()

    bench.do(ProgramLoaded(1, "n" * 300, 0x60_0000, 0x7000_0000))

    assert bench.messages == [(ProgramStarted(1, "n" * 256, 0x60_0000, 0x7000_0000), [])]


def test_intercepted_calls_are_what_was_said_last_and_outlive_a_reset() -> None:
    """A new hypervisor takes none before it says so."""
    bench = connected()
    first = bench.core.intercepted_calls
    bench.say(InterceptCalls("linux_i386", (3, 4)))
    taken = bench.core.intercepted_calls
    told = bench.say(Power(PowerAction.RESET, "port 92h"))
    after_reset = bench.core.intercepted_calls
    bench.new_hypervisor(2)
    for _ in range(5):
        bench.tick(3 * SECOND)

    assert first is None
    assert taken == after_reset == ("linux_i386", frozenset({3, 4}))
    assert PowerOn("reset by port 92h") in told
    assert bench.core.intercepted_calls is None


def test_reset_voids_the_call_that_waits() -> None:
    """Its reply finds nobody."""
    bench = connected()
    bench.do(WRITE)
    bench.say(Power(PowerAction.RESET, "port 92h"))

    assert bench.say(SystemCallReply(1, Disposition.DONE)) == []


def test_report_has_system_calls() -> None:
    """Counted as traps."""
    bench = connected()
    bench.tick()
    bench.do(WRITE)
    bench.tick(600 * MS)

    report = bench.bodies(Report)[-1]

    assert isinstance(report, Report)
    assert report.traps == (0, 0, 0, 0, 0, 0, 0, 1)
