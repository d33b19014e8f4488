"""The guest's socket between two threads, against a hypervisor's end that answers from a script."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import BusClosedError, IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.core import GuestCore, PowerOn, StateChanged
from iovirt_dist.guest.deferral import MAX_DEFERRED
from iovirt_dist.runtime.guest_channel import GuestChannel
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    GuestState,
    Interrupt,
    Message,
    Power,
    PowerAction,
    Report,
    Role,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, Doorbell
from iovirt_dist.wire.requests import QueueCompletion, pack_completions
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig
from iovirt_dist.wire.syscall_messages import (
    Disposition,
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)
from tests.unit.guest.queue_bench import NOTIFY, DriverBench

SYSTEM = IoPrivilege(0)
PATIENCE_S = 5.0
PEER = b"alice"

Answer = Callable[[Any, Sequence[Buffer]], Sequence[tuple[Message, tuple[bytes, ...]]]]
"""What is said to a `Trap`, a `SystemCall` or a `Doorbell` with its payload."""


def answer_all(trap: Any, payload: Sequence[Buffer]) -> Sequence[tuple[Message, tuple[bytes, ...]]]:
    """Reads return the trap's number; string reads as many bytes as were asked; stores need nothing."""
    if not isinstance(trap, Trap) or trap.kind is TrapKind.MMIO_STORE:
        return ()
    string = trap.kind is TrapKind.PORT_IN and trap.count > 1
    return ((TrapReply(trap.number, trap.number), (bytes(trap.width * trap.count),) if string else ()),)


class HypervisorPort:
    """A dialling port with a hypervisor's session end right behind it; time does not pass for that end.

    Args:
        answer: What it says to each trap.

    Attributes:
        traps: Traps received, with payload.
        others: Doorbells, system calls and other messages, with payload.
        closed: Whether the port was closed.
    """

    def __init__(self, answer: Answer = answer_all) -> None:
        self.traps: list[tuple[Trap, list[bytes]]] = []
        self.others: list[tuple[Message, list[bytes]]] = []
        self.closed = False
        self._answer = answer
        self._acceptor = Acceptor(SessionConfig(Role.HYPERVISOR, "hv", 9, lease_ms=600_000), lambda _hello: None)
        self._arrived: deque[list[Buffer]] = deque()
        self._there = threading.Condition()

        self._reader, self._writer = socket.socketpair()

    @property
    def endpoint(self) -> str:
        """No address."""
        return "fake"

    def say(self, body: Message, *payload: bytes) -> None:
        """Send a message, from any thread."""
        with self._there:
            self._put(self._acceptor.send(PEER, body, payload, 0).frames)

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """What the guest says."""
        if not frames:
            return True
        with self._there:
            for output in self._acceptor.receive(PEER, list(frames), 0):
                if isinstance(output, SendFrames):
                    self._put(output.frames)
                elif isinstance(output, Delivered) and not isinstance(output.body, Report):
                    frames_kept = [bytes(frame) for frame in output.payload]
                    if isinstance(output.body, Trap):
                        self.traps.append((output.body, frames_kept))
                    else:
                        self.others.append((output.body, frames_kept))
                    for body, payload in self._answer(output.body, output.payload):
                        self._put(self._acceptor.send(PEER, body, payload, 0).frames)
        return True

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Next message."""
        return self.receive_wait(0)

    def receive_wait(self, timeout_ms: int) -> tuple[bytes, list[Buffer]] | None:
        """Wait for the next message."""
        with self._there:
            self._there.wait_for(lambda: self._arrived, timeout_ms / 1000)
            if not self._arrived:
                return None
            self._reader.recv(1)
            return b"", self._arrived.popleft()

    def pending(self) -> bool:
        """Whether there is one."""
        return bool(self._arrived)

    def fileno(self) -> int:
        """Readable while there is one."""
        return self._reader.fileno()

    def close(self) -> None:
        """Close."""
        self.closed = True
        self._reader.close()
        self._writer.close()

    def _put(self, frames: Sequence[Buffer]) -> None:
        if frames:
            self._arrived.append([bytes(frame) for frame in frames])
            self._writer.send(b"!")
            self._there.notify_all()


class Bench:
    """A channel on a loop, powered on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Answer = answer_all) -> None:
        self.loop = loop
        self.port = HypervisorPort(answer)
        self.kicks = 0
        self.driver = DriverBench()
        self.core = GuestCore(SessionConfig(Role.GUEST, "alice", 3, lease_ms=600_000), "hv", self.driver.memory)
        self.channel = GuestChannel(self.core, self.port, self._kick)

    def power_on(self) -> None:
        """Open, and take the power-on as the vCPU loop does."""
        self.channel.open(self.loop)
        self.channel.pump_until(lambda: self.core.opener.open)
        assert self.channel.take_power_on() == "connected to hypervisor hv"
        self.kicks = 0

    async def in_vcpu_thread(self, work: Callable[[], object]) -> object:
        """Run in another thread while the loop goes on."""
        return await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S)

    async def until(self, done: Callable[[], bool]) -> None:
        """Let the loop go on until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                await asyncio.sleep(0.001)

    def _kick(self) -> None:
        self.kicks += 1


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    """Makes benches, and closes them."""
    benches: list[Bench] = []

    def made(answer: Answer = answer_all) -> Bench:
        bench = Bench(asyncio.get_running_loop(), answer)
        bench.power_on()
        benches.append(bench)
        return bench

    yield made
    for bench in benches:
        if not bench.port.closed:
            bench.channel.begin_close()
            bench.channel.close("test is over")


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


def complete(head: int, data: bytes, lines: tuple[int, ...] = ()) -> tuple[Message, tuple[bytes, ...]]:
    """A completion with its payload."""
    return Completions(2, 1, 7, True, pack_completions([QueueCompletion(head, len(data), 0)]), lines), (data,)


async def armed(make: Callable[..., Bench], answer: Answer = answer_all) -> Bench:
    """A bench whose queue is armed."""
    bench = make(answer)
    bench.port.say(bench.driver.arm)
    await bench.until(lambda: bench.core.waits_for_safe_point)
    bench.channel.safe_point()
    bench.kicks = 0
    return bench


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


async def test_channel_doorbell_leaves_at_once_and_nobody_answers(make: Callable[..., Bench]) -> None:
    """In the store; the CPU goes on."""
    bench = await armed(make)
    bench.driver.add_read(0)

    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    ((body, _),) = bench.port.others
    assert isinstance(body, Doorbell)
    assert len(body.requests) == 28
    assert bench.port.traps == []


async def test_channel_completion_while_guest_code_runs_kicks_and_waits_for_the_vcpu_thread(
    make: Callable[..., Bench],
) -> None:
    """Guest memory is the vCPU thread's; the interrupt is not visible before the data."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    body, payload = complete(head, b"data", (0, 1))
    bench.port.say(body, *payload)
    bench.port.say(Interrupt(9, 1))
    await bench.until(lambda: bench.kicks > 0)
    before = bench.driver.data(0, 4), bench.channel.lines()
    await bench.until(lambda: not bench.port.pending())
    still = bench.driver.data(0, 4), bench.channel.lines()
    await bench.in_vcpu_thread(bench.channel.safe_point)

    assert before == still == (bytes(4), 0)
    assert bench.driver.data(0, 4) == b"data"
    assert bench.channel.lines() == 1 | 1 << 9


async def test_channel_completion_inside_of_a_trap_is_written_before_the_trap_ends(make: Callable[..., Bench]) -> None:
    """The reply behind it must not reveal it before it is there."""
    heads: list[int] = []

    def answer(trap: Any, _: Sequence[Buffer]) -> Sequence[tuple[Message, tuple[bytes, ...]]]:
        if not isinstance(trap, Trap):
            return ()
        return (complete(heads[0], b"data"), (TrapReply(trap.number, 1), ()))

    bench = await armed(make, answer)
    heads.append(bench.driver.add_read(0))
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    bench.channel.load(0x1000_0060, 4, SYSTEM)

    assert bench.driver.data(0, 4) == b"data"
    assert not bench.core.waits_for_safe_point


async def test_channel_completion_that_waits_is_written_before_the_next_trap_ends(make: Callable[..., Bench]) -> None:
    """The kick has not reached the CPU yet when it traps."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)
    body, payload = complete(head, b"data")
    bench.port.say(body, *payload)
    await bench.until(lambda: bench.core.waits_for_safe_point)

    await bench.in_vcpu_thread(lambda: bench.channel.load(0x1000_0060, 4, SYSTEM))

    assert bench.driver.data(0, 4) == b"data"


async def test_channel_halted_cpu_takes_a_completion_that_waited(make: Callable[..., Bench]) -> None:
    """It came between the CPU's last look and its HLT."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)
    seen = bench.channel.line_changes
    body, payload = complete(head, b"data", (0, 1))
    bench.port.say(body, *payload)
    await bench.until(lambda: bench.core.waits_for_safe_point)

    await bench.in_vcpu_thread(lambda: bench.channel.pump_until(lambda: bench.channel.line_changes != seen))

    assert bench.driver.data(0, 4) == b"data"
    assert bench.channel.lines() == 1


async def test_channel_loop_leaves_messages_where_they_are_when_too_many_wait(make: Callable[..., Bench]) -> None:
    """They are received when the vCPU thread comes."""
    bench = await armed(make)
    arm = ArmQueue(3, 3, 1, 0, 8, 1 << 40, 1 << 40, 1 << 40, 0, 0)
    for _ in range(MAX_DEFERRED // 2):
        bench.port.say(arm)
        await asyncio.sleep(0)
    await bench.until(lambda: not bench.port.pending())
    for _ in range(MAX_DEFERRED // 2 + 50):
        bench.port.say(arm)
    await bench.until(lambda: bench.core.full)
    await asyncio.sleep(0)
    left = bench.port.pending()

    await bench.in_vcpu_thread(bench.channel.safe_point)

    assert left
    assert not bench.port.pending()
    assert not bench.core.waits_for_safe_point
    assert bench.core.queues.counts.broken == MAX_DEFERRED + 50
