"""The guest's socket between two threads: traps, interrupts, power, system calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import BusClosedError, IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.core import PowerOn, StateChanged
from iovirt_dist.runtime.guest_channel import GuestChannel
from iovirt_dist.wire.messages import (
    GuestState,
    Interrupt,
    Power,
    PowerAction,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.syscall_messages import (
    Disposition,
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)
from tests.unit.runtime.channel_bench import SYSTEM, Bench


async def test_channel_in_and_load_return_the_replys_value_in_their_width(make: Callable[..., Bench]) -> None:
    """Cut to the width, whatever the hypervisor says."""
    bench = make(lambda trap, _: ((TrapReply(trap.number, 0x1122_3344_5566_7788), ()),))

    assert bench.channel.port_in(0x1F0, 2, 1, SYSTEM) == b"\x88\x77"
    assert bench.channel.load(0x1000_0000, 4, SYSTEM) == 0x5566_7788
    assert bench.channel.acknowledge_interrupt() == 0x1122_3344_5566_7788


async def test_channel_string_in_returns_its_bytes_and_ones_where_some_are_missing(make: Callable[..., Bench]) -> None:
    """A short answer must not become a short memory write."""
    bench = make(lambda trap, _: ((TrapReply(trap.number, 0), (b"abc",)),))

    assert bench.channel.port_in(0x1F0, 2, 4, SYSTEM) == b"abc\xff\xff\xff\xff\xff"


async def test_channel_out_of_one_element_and_of_a_string(make: Callable[..., Bench]) -> None:
    """A value in the message, a string in the payload."""
    bench = make()

    bench.channel.port_out(0x3F8, 2, b"\x34\x12", IoPrivilege(3, 0, permitted=True))
    bench.channel.port_out(0x1F0, 2, b"abcd", SYSTEM)

    assert bench.port.traps == [
        (Trap(1, TrapKind.PORT_OUT, 0x3F8, 2, 1, 0x1234, 3, 0, True), []),
        (Trap(2, TrapKind.PORT_OUT, 0x1F0, 2, 2, 0, 0), [b"abcd"]),
    ]


async def test_channel_store_is_posted(make: Callable[..., Bench]) -> None:
    """Nobody answers, and it returns."""
    bench = make()

    for value in range(100):
        bench.channel.store(0x1000_0000, 4, value, SYSTEM)

    assert [trap.value for trap, _ in bench.port.traps] == list(range(100))


async def test_channel_refused_instruction_faults(make: Callable[..., Bench]) -> None:
    """With the vector and error code that the hypervisor says."""
    bench = make(lambda trap, _: ((TrapReply(trap.number, 0, 13, 4), ()),))

    with pytest.raises(GuestFault) as fault:
        bench.channel.port_in(0x3F8, 1, 1, IoPrivilege(3))

    assert (fault.value.vector, fault.value.error_code) == (13, 4)


async def test_channel_line_that_rises_with_a_reply_is_there_and_kicks(make: Callable[..., Bench]) -> None:
    """The CPU is inside of the instruction: it must look up at its end."""
    bench = make(lambda trap, _: ((TrapReply(trap.number, 0, -1, 0, (0, 1)), ()),))

    bench.channel.port_out(0x3F9, 1, b"\x02", SYSTEM)

    assert bench.channel.lines() == 1
    assert bench.kicks >= 1


async def test_channel_serves_the_socket_from_the_loop_while_guest_code_runs(make: Callable[..., Bench]) -> None:
    """An interrupt comes without any trap."""
    bench = make()
    bench.channel.port_in(0x3FD, 1, 1, SYSTEM)
    before = bench.channel.line_changes

    bench.port.say(Interrupt(0, 1))
    await bench.until(lambda: bench.channel.lines() == 1)

    assert bench.channel.line_changes > before
    assert bench.kicks == 1


async def test_channel_loop_serves_again_after_each_trap_of_the_other_thread(make: Callable[..., Bench]) -> None:
    """Whoever had the socket last, no message is left lying."""
    bench = make()

    for count in range(1, 40):
        await bench.in_vcpu_thread(lambda: bench.channel.port_in(0x3FD, 1, 1, SYSTEM))
        bench.port.say(Interrupt(0, count))
        await bench.until(lambda count=count: bench.channel.lines() == count & 1)  # type: ignore[misc]  # mypy does not type lambda defaults

    assert len(bench.port.traps) == 39


async def test_channel_halted_cpu_is_woken_by_a_line(make: Callable[..., Bench]) -> None:
    """It waits in its own thread, and pumps."""
    bench = make()
    seen = bench.channel.line_changes
    halted = asyncio.create_task(
        bench.in_vcpu_thread(lambda: bench.channel.pump_until(lambda: bench.channel.line_changes != seen))
    )
    await asyncio.sleep(0)

    bench.port.say(Interrupt(0, 1))
    await halted

    assert bench.channel.lines() == 1


async def test_channel_reset_voids_the_trap_that_waits(make: Callable[..., Bench]) -> None:
    """The instruction never completes; the machine starts over."""
    bench = make(lambda trap, _: ((Power(PowerAction.RESET, "port 92h"), ()),))

    with pytest.raises(BusClosedError):
        bench.channel.port_out(0x92, 1, b"\x01", SYSTEM)

    assert bench.channel.take_power_on() == "reset by port 92h"
    assert bench.channel.take_power_on() == ""


async def test_channel_power_off_voids_the_trap_that_waits(make: Callable[..., Bench]) -> None:
    """And later ones."""
    bench = make(lambda trap, _: ((Power(PowerAction.POWER_OFF, "test device"), ()),))

    with pytest.raises(BusClosedError):
        bench.channel.load(0x10_0000, 4, SYSTEM)
    with pytest.raises(BusClosedError):
        bench.channel.store(0x10_0000, 4, 0, SYSTEM)

    assert bench.channel.take_power_off() == "powered off by test device"


class ResetMeanwhile:
    """A lock that the loop's thread held, because the machine is reset, when the vCPU thread came for it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __enter__(self) -> None:
        self._bench.channel._power(PowerOn("reset by port 92h"))

    def __exit__(self, *_: object) -> None:
        """Release."""


@pytest.mark.parametrize(
    "access",
    [
        lambda channel: channel.load(0x10_0000, 4, SYSTEM),
        lambda channel: channel.store(0x10_0000, 4, 0, SYSTEM),
        lambda channel: channel.program_started(1, "cat", 0, 0),
        lambda channel: channel.system_call(1, 3, (), (), b""),
    ],
)
async def test_channel_power_that_changes_before_a_trap_voids_it(
    make: Callable[..., Bench], access: Callable[[GuestChannel], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new machine's devices must not see what the old one's CPU wanted."""
    bench = make()
    monkeypatch.setattr(bench.channel, "_lock", ResetMeanwhile(bench))

    with pytest.raises(BusClosedError):
        access(bench.channel)

    monkeypatch.undo()
    assert (bench.port.traps, bench.port.others) == ([], [])


async def test_channel_that_closes_frees_a_trap_that_nobody_answers(make: Callable[..., Bench]) -> None:
    """Within the time that a person waits for Ctrl-C."""
    bench = make(lambda trap, _: ())
    trapped = asyncio.create_task(bench.in_vcpu_thread(lambda: bench.channel.port_in(0x3F8, 1, 1, SYSTEM)))
    await bench.until(lambda: bool(bench.port.traps))

    bench.channel.begin_close()

    with pytest.raises(BusClosedError):
        await trapped
    bench.channel.close("shutting down")
    assert bench.port.closed
    assert not bench.core.opener.open


async def test_channel_tells_the_core_of_states_and_of_its_own_failure(make: Callable[..., Bench]) -> None:
    """The status file and the hypervisor know."""
    bench = make()
    bench.channel.state_changed(StateChanged(GuestState.HALTED, "", 1, 2))
    first = bench.core.state

    bench.channel.fail("internal error, see the log")

    assert first is GuestState.HALTED
    assert (bench.core.state, bench.core.reason) == (GuestState.STOPPED, "internal error, see the log")


async def test_channel_system_call_waits_for_its_outcome(make: Callable[..., Bench]) -> None:
    """With the data that the call reads, and that it writes."""
    bench = make(lambda call, _: ((SystemCallReply(call.number, Disposition.DONE, 4, (4,)), (b"da", b"ta")),))

    outcome = bench.channel.system_call(1, 3, (0, 0x8000, 4), (4,), b"in")

    assert outcome == SystemCallOutcome(Disposition.DONE, 4, (4,), b"data", ())
    assert bench.port.others == [(SystemCall(1, 1, 3, (0, 0x8000, 4), (4,)), [b"in"])]


async def test_channel_system_call_ends_with_the_power(make: Callable[..., Bench]) -> None:
    """The program never goes on."""
    bench = make(lambda call, _: ((Power(PowerAction.RESET, "port 92h"), ()),))

    with pytest.raises(BusClosedError):
        bench.channel.system_call(1, 3, (), (), b"")


async def test_channel_system_call_answered_as_a_trap_stays_unanswered(make: Callable[..., Bench]) -> None:
    """A CPU never gets the wrong kind of answer."""
    bench = make(
        lambda call, _: (
            (TrapReply(call.number, 7), ()),
            (SystemCallReply(call.number, Disposition.PASS), ()),
        )
    )

    assert bench.channel.system_call(1, 3, (), (), b"").disposition is Disposition.PASS


async def test_channel_program_is_announced_without_waiting(make: Callable[..., Bench]) -> None:
    """Posted, as a store is."""
    bench = make()

    bench.channel.program_started(1, "cat", 0x60_0000, 0x7000_0000)

    assert bench.port.others == [(ProgramStarted(1, "cat", 0x60_0000, 0x7000_0000), [])]


async def test_channel_intercepted_calls_are_what_the_hypervisor_says(make: Callable[..., Bench]) -> None:
    """None before."""
    bench = make()
    before = bench.channel.intercepted_calls()

    bench.port.say(InterceptCalls("linux_i386", (3,)))
    await bench.until(lambda: bench.channel.intercepted_calls() is not None)

    assert before is None
    assert bench.channel.intercepted_calls() == ("linux_i386", frozenset({3}))
