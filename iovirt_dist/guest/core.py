"""The guest's side of the guest protocol, without CPU and without I/O.

Theory of operation. The vCPU's traps come in as events and leave as numbered messages; replies, interrupt lines and
power control come back as actions. At most one trap waits for a reply. A session that resumes loses nothing. A
hypervisor that does not know us any more has lost our devices, as if the mainboard had been replaced: the machine is
powered on afresh, which is also how it starts the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from iovirt_dist.errors import WindowFullError
from iovirt_dist.guest.bus import IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.prefetch import EMPTY, PrefetchBuffer
from iovirt_dist.step import Record
from iovirt_dist.wire.codec import Buffer, Frames
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
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput
from iovirt_dist.wire.syscall_messages import InterceptCalls, ProgramStarted, SystemCall, SystemCallReply

REPORT_INTERVAL_NS = 500_000_000

MAX_LINE = 63
"""Highest interrupt input of any CPU: the bits of ``mip`` on a 64-bit RISC-V."""

MAX_TEXT = 256
"""Characters of a `wire.fields.Text`."""


class Started(NamedTuple):
    """The process runs; the session may begin."""


class TrapRaised(Record, frozen=True):
    """The vCPU executed an instruction that only the hypervisor can complete; fields as in `wire.messages.Trap`.

    `data` holds the elements of a string output and is empty otherwise.
    """

    kind: TrapKind
    address: int
    width: int
    count: int
    value: int
    data: bytes
    privilege: IoPrivilege


class SystemCallRaised(Record, frozen=True):
    """A program made a system call that the hypervisor takes; fields as in `Bus.system_call`."""

    process: int
    call: int
    arguments: tuple[int, ...]
    buffers: tuple[int, ...]
    data: bytes


class ProgramLoaded(NamedTuple):
    """A program will now run; fields as in `wire.syscall_messages.ProgramStarted`."""

    process: int
    name: str
    break_start: int
    map_top: int


class FramesReceived(Record, frozen=True):
    """A message came from the hypervisor."""

    frames: Sequence[Buffer]


class StateChanged(NamedTuple):
    """The vCPU runs, halts or stopped; `interrupts` and `faults` are its counts so far."""

    state: GuestState
    reason: str
    interrupts: int
    faults: int


class TimerFired(NamedTuple):
    """The deadline that the core gave has come, or any earlier time."""


class StopRequested(NamedTuple):
    """The process is about to end."""

    reason: str


Event: TypeAlias = (
    Started | TrapRaised | SystemCallRaised | ProgramLoaded | FramesReceived | StateChanged | TimerFired | StopRequested
)


class Send(Record, frozen=True):
    """Send frames to the hypervisor."""

    frames: Frames


class CompleteTrap(Record, frozen=True):
    """Let the waiting instruction complete, or fault if `fault` is not -1."""

    value: int
    data: Buffer
    fault: int
    error_code: int


class CompleteCall(NamedTuple):
    """Let the program that waits for its system call go on as the outcome says."""

    outcome: SystemCallOutcome


class SetLines(NamedTuple):
    """The CPU's interrupt inputs now, bit per line."""

    lines: int


class PowerOn(NamedTuple):
    """Reset the machine and let it run: its devices are new. A trap that waits is void."""

    reason: str


class PowerOff(NamedTuple):
    """Stop the machine for good."""

    reason: str


class Note(NamedTuple):
    """Log one line of life cycle."""

    text: str


Action: TypeAlias = Send | CompleteTrap | CompleteCall | SetLines | PowerOn | PowerOff | Note


@dataclass(slots=True)
class Counts:
    """What a guest counts of itself since the hypervisor knows it.

    Attributes:
        traps: By `TrapKind` value; index 0 is unused.
    """

    traps: list[int] = field(default_factory=lambda: [0] * (len(TrapKind) + 1))
    bytes_in: int = 0
    bytes_out: int = 0


class GuestCore:
    """Sans-IO core of a guest process.

    Args:
        config: Who we are.
        hypervisor: Name of the one hypervisor that we talk to.

    Attributes:
        counts: What we count of ourselves.
        lines: The CPU's interrupt inputs, bit per line.
        intercepted_calls: ABI and numbers of the system calls that the hypervisor takes, as in
            `Bus.intercepted_calls`; None for none. It outlives a reset, not the hypervisor.
    """

    def __init__(self, config: SessionConfig, hypervisor: str) -> None:
        self.opener = Opener(config, hypervisor)
        self.counts = Counts()
        self.lines = 0
        self.intercepted_calls: tuple[str, frozenset[int]] | None = None
        self.state = GuestState.STARTING
        self.reason = f"waiting for hypervisor {hypervisor}"
        self._line_counts: dict[int, int] = {}
        self._number = 0
        self._waiting_for = 0
        self._raised = TrapRaised(TrapKind.PORT_IN, 0, 1, 1, 0, b"", IoPrivilege(0))
        self._prefetch = PrefetchBuffer()
        self._interrupts = 0
        self._faults = 0
        self._changed = False
        self._report_due_ns = 0
        self._actions: list[Action] = []

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        self._actions = []
        if isinstance(event, TrapRaised):
            self._trap(event, now_ns)
        elif isinstance(event, FramesReceived):
            self._outputs(self.opener.receive(event.frames, now_ns), now_ns)
        elif isinstance(event, TimerFired):
            self._outputs(self.opener.tick(now_ns), now_ns)
            self._report(now_ns)
        elif isinstance(event, StateChanged):
            self.state, self.reason, self._interrupts, self._faults = event
            self._changed = True
        elif isinstance(event, SystemCallRaised):
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
        if not self._changed:
            return due
        return self._report_due_ns if due is None else min(due, self._report_due_ns)

    def _trap(self, event: TrapRaised, now_ns: int) -> None:
        kind, address, width, count = event.kind, event.address, event.width, event.count
        self._number = number = self._number + 1
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
            self._waiting_for = number
            self._raised = event
        self._void_prefetched(now_ns)
        data = event.data
        trap = Trap(number, kind, address, width, count, event.value, *event.privilege)
        self._send(trap, (data,) if data else (), now_ns)

    def _system_call(self, event: SystemCallRaised, now_ns: int) -> None:
        self._number = self._waiting_for = number = self._number + 1
        self._changed = True
        self.counts.traps[TrapKind.SYSTEM_CALL] += 1
        data = event.data
        self.counts.bytes_out += len(data)
        self._void_prefetched(now_ns)
        call = SystemCall(number, event.process, event.call, event.arguments, event.buffers)
        self._send(call, (data,) if data else (), now_ns)

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
                self._message(output.body, output.payload)
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

    def _message(self, body: Message, payload: Sequence[Buffer]) -> None:
        if isinstance(body, TrapReply):
            self._set_lines(body.lines)
            if body.number == self._waiting_for:
                self._waiting_for = 0
                data = payload[0] if payload else b""
                self._actions.append(CompleteTrap(body.value, data, body.fault, body.error_code))
                raised = self._raised
                if data and raised.count == 1 and raised.kind is TrapKind.PORT_IN:
                    self._prefetch.fill(raised.address, raised.width, raised.privilege, data)
        elif isinstance(body, Interrupt):
            self._line(body.line, body.count)
            self._actions.append(SetLines(self.lines))
        elif isinstance(body, SystemCallReply):
            self._set_lines(body.lines)
            if body.number == self._waiting_for:
                self._waiting_for = 0
                data = payload[0] if len(payload) == 1 else b"".join(payload)
                self.counts.bytes_in += len(data)
                outcome = SystemCallOutcome(body.disposition, body.result, body.outputs, data, body.effects)
                self._actions.append(CompleteCall(outcome))
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
        self.intercepted_calls = None
        self.counts = Counts()
        self._changed, self._report_due_ns = True, now_ns
        self._actions.append(PowerOn(f"connected to hypervisor {opened.name}"))

    def _forget_devices(self) -> None:
        self._line_counts.clear()
        self.lines = 0
        self._waiting_for = 0
        self._prefetch = PrefetchBuffer()
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
            counts.bytes_in,
            counts.bytes_out,
            self._interrupts,
            self._faults,
        )
        self._send(report, (), now_ns)
