"""The guest's side of the guest protocol, without CPU and without I/O.

Theory of operation. The vCPU's traps come in as events and leave as numbered messages; replies, interrupt lines and
power control come back as actions. At most one trap waits for a reply. A session that resumes loses nothing. A
hypervisor that does not know us any more has lost our devices, as if the mainboard had been replaced: the machine is
powered on afresh, which is also how it starts the first time.

A store to the notify register of an armed queue is a doorbell and ends in `guest.queues`, which reads guest memory and,
when completions come, writes it. It is written only while the CPU rests. What comes at another time waits, and all that
comes behind it, so that no later reply or interrupt shows itself before the data: the core asks for a safe point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from iovirt_dist.errors import WindowFullError
from iovirt_dist.guest.armed_queue import ArmedQueue, Outgoing, QueueCounts
from iovirt_dist.guest.bus import IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.deferral import Deferral
from iovirt_dist.guest.events import (
    Action,
    CompleteCall,
    CompleteTrap,
    Event,
    FramesReceived,
    Note,
    PowerOff,
    PowerOn,
    ProgramLoaded,
    SafePointReached,
    SeekSafePoint,
    Send,
    SetLines,
    Started,
    StateChanged,
    StopRequested,
    SystemCallRaised,
    TimerFired,
    TrapRaised,
)
from iovirt_dist.guest.prefetch import EMPTY, PrefetchBuffer
from iovirt_dist.guest.queues import ArmedQueues, NoMemory
from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    GuestState,
    Interrupt,
    Message,
    Power,
    PowerAction,
    PrefetchRead,
    Report,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput
from iovirt_dist.wire.syscall_messages import InterceptCalls, ProgramStarted, SystemCall, SystemCallReply

__all__ = [
    "Action",
    "CompleteCall",
    "CompleteTrap",
    "Counts",
    "Event",
    "FramesReceived",
    "GuestCore",
    "Note",
    "PowerOff",
    "PowerOn",
    "ProgramLoaded",
    "SafePointReached",
    "SeekSafePoint",
    "Send",
    "SetLines",
    "Started",
    "StateChanged",
    "StopRequested",
    "SystemCallRaised",
    "TimerFired",
    "TrapRaised",
]

REPORT_INTERVAL_NS = 500_000_000

MAX_LINE = 63
"""Highest interrupt input of any CPU: the bits of ``mip`` on a 64-bit RISC-V."""

MAX_TEXT = 256
"""Characters of a `wire.fields.Text`."""


@dataclass(slots=True)
class Counts:
    """What a guest counts of itself since the hypervisor knows it.

    Attributes:
        traps: By `TrapKind` value; index 0 is unused.
        bytes_in: Read by operations and by system calls.
        bytes_out: Written by them. What went through queues is in `QueueCounts`.
    """

    traps: list[int] = field(default_factory=lambda: [0] * (len(TrapKind) + 1))
    bytes_in: int = 0
    bytes_out: int = 0


class GuestCore:
    """Sans-IO core of a guest process.

    Args:
        config: Who we are.
        hypervisor: Name of the one hypervisor that we talk to.
        memory: Guest memory, if it exists already; else `use_memory`.

    Attributes:
        queues: The armed queues.
        counts: What we count of ourselves.
        number: Of the latest trap, 0 before the first.
        lines: The CPU's interrupt inputs, bit per line.
        intercepted_calls: ABI and numbers of the system calls that the hypervisor takes, as in
            `Bus.intercepted_calls`; None for none. It outlives a reset, not the hypervisor.
    """

    def __init__(self, config: SessionConfig, hypervisor: str, memory: GuestMemory | None = None) -> None:
        self.opener = Opener(config, hypervisor)
        self.queues = ArmedQueues(memory if memory is not None else NoMemory())
        self.counts = Counts()
        self.lines = 0
        self.intercepted_calls: tuple[str, frozenset[int]] | None = None
        self.state = GuestState.STARTING
        self.reason = f"waiting for hypervisor {hypervisor}"
        self._line_counts: dict[int, int] = {}
        self.number = 0
        self._waiting_for = self._waiting_call = 0  # numbers; at most one of them is not 0
        self._raised = TrapRaised(TrapKind.PORT_IN, 0, 1, 1, 0, b"", IoPrivilege(0))
        self._prefetch = PrefetchBuffer()
        self._interrupts = 0
        self._faults = 0
        self._changed = False
        self._report_due_ns = 0
        self._safe = True
        self._deferred = Deferral()
        self._actions: list[Action] = []

    def use_memory(self, memory: GuestMemory) -> None:
        """Take the guest's memory, before it is powered on."""
        self.queues.use_memory(memory)

    @property
    def waits_for_safe_point(self) -> bool:
        """Whether messages wait for `SafePointReached`."""
        return bool(self._deferred)

    @property
    def full(self) -> bool:
        """Whether so much waits for a safe point that no more should be received before it."""
        return self._deferred.full

    @property
    def bytes_in(self) -> int:
        """Bytes that the guest's traps and requests have read."""
        return self.counts.bytes_in + self.queues.counts.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes that the guest's traps and requests have written."""
        return self.counts.bytes_out + self.queues.counts.bytes_out

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        self._actions = []
        if isinstance(event, TrapRaised):
            if not self._deferred or self._catch_up(now_ns):
                self._trap(event, now_ns)
        elif isinstance(event, FramesReceived):
            self._safe = event.safe
            if event.safe and self._deferred:
                self._catch_up(now_ns)
            self._outputs(self.opener.receive(event.frames, now_ns), now_ns)
        elif isinstance(event, TimerFired):
            self._outputs(self.opener.tick(now_ns), now_ns)
            self._report(now_ns)
        elif isinstance(event, StateChanged):
            self.state, self.reason, self._interrupts, self._faults = event
            self._changed = True
        elif isinstance(event, SafePointReached):
            self._catch_up(now_ns)
        elif isinstance(event, SystemCallRaised):
            if self._catch_up(now_ns):
                self._system_call(event, now_ns)
        elif isinstance(event, ProgramLoaded):
            process, name, break_start, map_top = event
            self._send(ProgramStarted(process, name[:MAX_TEXT], break_start, map_top), (), now_ns)
        elif isinstance(event, Started):
            self._outputs(self.opener.start(now_ns), now_ns)
        else:
            self._report_due_ns, self._changed = now_ns, True
            self._report(now_ns)
            self._outputs(self.opener.close(event.reason, now_ns), now_ns)
        return self._actions

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due."""
        due = self.opener.deadline_ns()
        if not self._changed or not self.opener.open:
            return due
        return self._report_due_ns if due is None else min(due, self._report_due_ns)

    def _trap(self, event: TrapRaised, now_ns: int) -> None:
        kind, address, width, count = event.kind, event.address, event.width, event.count
        if kind is TrapKind.MMIO_STORE and width == 4:
            queue = self.queues.by_doorbell.get((address, event.value))
            if queue is not None:
                self._doorbell(queue, now_ns)
                return
            self.queues.stored(address, event.value)
        self.number = number = self.number + 1
        self._changed = True
        counts = self.counts
        counts.traps[kind] += 1
        if kind is TrapKind.PORT_IN:
            counts.bytes_in += width * count
            known = self._prefetch.take(address, width, count, event.privilege)
            if known != EMPTY:
                self._actions.append(CompleteTrap(known, b"", -1, 0))
                return
        elif kind is TrapKind.PORT_OUT or kind is TrapKind.MMIO_STORE:
            counts.bytes_out += width * count
        elif kind is TrapKind.MMIO_LOAD:
            counts.bytes_in += width * count
        if kind is not TrapKind.MMIO_STORE:
            self._waiting_for, self._waiting_call = number, 0
            self._raised = event
        self._void_prefetched(now_ns)
        data = event.data
        trap = Trap(number, kind, address, width, count, event.value, *event.privilege)
        self._send(trap, (data,) if data else (), now_ns)

    def _doorbell(self, queue: ArmedQueue, now_ns: int) -> None:
        self.number += 1
        self._changed = True
        self.counts.traps[TrapKind.DOORBELL] += 1
        self._void_prefetched(now_ns)
        self._say(queue.gather(1, self.number), now_ns)

    def _system_call(self, event: SystemCallRaised, now_ns: int) -> None:
        self.number = self._waiting_call = number = self.number + 1
        self._waiting_for = 0
        self._changed = True
        self.counts.traps[TrapKind.SYSTEM_CALL] += 1
        data = event.data
        self.counts.bytes_out += len(data)
        self._void_prefetched(now_ns)
        call = SystemCall(number, event.process, event.call, event.arguments, event.buffers)
        self._send(call, (data,) if data else (), now_ns)

    def _say(self, messages: Sequence[Outgoing], now_ns: int) -> None:
        for body, payload in messages:
            self._send(body, payload, now_ns)

    def _send(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        try:
            self._actions.append(Send(self.opener.send(body, payload, now_ns).frames))
        except WindowFullError as error:
            self._actions.append(PowerOff(str(error)))

    def _void_prefetched(self, now_ns: int) -> None:
        """Something else happens than further INs: what was sent ahead is void."""
        if self._prefetch.held:
            self._tell_prefetched(now_ns)
            self._prefetch.clear()

    def _tell_prefetched(self, now_ns: int) -> None:
        """Say how many INs needed nobody, before anything that shows it."""
        read = self._prefetch.told()
        if read:
            self._send(PrefetchRead(read), (), now_ns)

    def _outputs(self, outputs: Sequence[SessionOutput], now_ns: int) -> None:
        for output in outputs:
            if isinstance(output, Delivered):
                self._delivered(output.body, output.payload, now_ns)
            elif isinstance(output, SendFrames):
                self._actions.append(Send(output.frames))
            elif isinstance(output, Opened):
                self._opened(output, now_ns)
            elif isinstance(output, Lost):
                self._actions.append(Note(f"hypervisor {output.name} lost: {output.reason}; waiting for it"))
            elif isinstance(output, Rejected):
                self._actions.append(Note(f"message refused: {output.reason}"))
                if output.reason == "fenced":
                    self._actions.append(PowerOff("another process of this name took over"))

    def _delivered(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        """Take a message now or at the next safe point."""
        if self._safe or not self._deferred.concerns(body):
            self._message(body, payload, now_ns)
            return
        if not self._deferred:
            self._actions.append(SeekSafePoint())
        self._deferred.put(body, payload)

    def _catch_up(self, now_ns: int) -> bool:
        """The CPU rests: take what waited; False if its power changes, which voids what the CPU wants now."""
        while self._deferred:
            self._message(*self._deferred.take(), now_ns)
        return not any(isinstance(action, PowerOn | PowerOff) for action in self._actions)

    def _message(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        if isinstance(body, TrapReply):
            self._set_lines(body.lines)
            if body.number == self._waiting_for:
                self._waiting_for = 0
                data = payload[0] if payload else b""
                self._actions.append(CompleteTrap(body.value, data, body.fault, body.error_code))
                raised = self._raised
                if data and raised.count == 1 and raised.kind is TrapKind.PORT_IN:
                    self._prefetch.fill(raised.address, raised.width, raised.privilege, data)
        elif isinstance(body, Completions):
            self._say(self.queues.complete(body, payload), now_ns)
            self._set_lines(body.lines)
            self._changed = True
        elif isinstance(body, Interrupt):
            self._line(body.line, body.count)
            self._actions.append(SetLines(self.lines))
        elif isinstance(body, SystemCallReply):
            self._set_lines(body.lines)
            if body.number == self._waiting_call:
                self._waiting_call = 0
                data = payload[0] if len(payload) == 1 else b"".join(payload)
                self.counts.bytes_in += len(data)
                outcome = SystemCallOutcome(body.disposition, body.result, body.outputs, data, body.effects)
                self._actions.append(CompleteCall(outcome))
        elif isinstance(body, ArmQueue):
            self._say(self.queues.arm(body), now_ns)
        elif isinstance(body, DisarmQueue):
            self.queues.disarm(body)
        elif isinstance(body, InterceptCalls):
            self.intercepted_calls = body.abi, frozenset(body.calls)
        elif isinstance(body, Power):
            if body.action is PowerAction.RESET:
                self._forget_devices()
                self._actions.append(PowerOn(f"reset by {body.reason}"))
            else:
                self._actions.append(PowerOff(f"powered off by {body.reason}"))

    def _set_lines(self, changes: tuple[int, ...]) -> None:
        """Take pairs of line and count."""
        if changes:
            for at in range(0, len(changes) - 1, 2):
                self._line(changes[at], changes[at + 1])
            self._actions.append(SetLines(self.lines))

    def _line(self, line: int, count: int) -> None:
        """Take a line's count; one that is not newer than what we have says nothing, nor does a line no CPU has."""
        if line <= MAX_LINE and count > self._line_counts.get(line, 0):
            self._line_counts[line] = count
            self.lines = (self.lines & ~(1 << line)) | ((count & 1) << line)

    def _opened(self, opened: Opened, now_ns: int) -> None:
        if opened.resumed:
            self._actions.append(Note(f"hypervisor {opened.name} is back"))
            return
        self._forget_devices()
        self._deferred.clear()
        self.intercepted_calls = None
        self.counts, self.queues.counts = Counts(), QueueCounts()
        self._changed, self._report_due_ns = True, now_ns
        self._actions.append(PowerOn(f"connected to hypervisor {opened.name}"))

    def _forget_devices(self) -> None:
        self._line_counts.clear()
        self.lines = 0
        self._waiting_for = self._waiting_call = 0
        self._prefetch = PrefetchBuffer()
        self.queues.clear()
        self._actions.append(SetLines(0))

    def _report(self, now_ns: int) -> None:
        """Tell the hypervisor our state and counts, at most once an interval."""
        if not self._changed or now_ns < self._report_due_ns or not self.opener.open:
            return
        self._changed, self._report_due_ns = False, now_ns + REPORT_INTERVAL_NS
        self._tell_prefetched(now_ns)
        counts = self.counts
        report = Report(
            self.state,
            self.reason[:MAX_TEXT],
            tuple(counts.traps),
            self.bytes_in,
            self.bytes_out,
            self._interrupts,
            self._faults,
        )
        self._send(report, (), now_ns)
