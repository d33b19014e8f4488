"""A hypervisor core with real session ends around it: guests that raise traps, controllers that answer when told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.hypervisor import events as hv
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.platform.level import Level
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer, Frames
from iovirt_dist.wire.commands import (
    Command,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    command_data,
    pack_completions,
    unpack_commands,
)
from iovirt_dist.wire.messages import Complete, GuestState, Message, Report, Role, Submit, Trap, TrapKind, TrapReply
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig, SessionOutput

MS = 1_000_000
SECOND = 1_000 * MS
LEASE_MS = 2000
DISK = UnitIdentity(1 << 20, 512, False, "DISK")
TERMINAL = UnitIdentity(0, 1, False, "TTY")
INTR = 0


def trap(kind: TrapKind, address: int, width: int = 1, value: int = 0, *, number: int = 1, count: int = 1) -> Trap:
    """A trap of privileged code."""
    return Trap(number, kind, address, width, count, value, 0)


def report(state: GuestState, port_in: int = 0) -> Report:
    """A guest's report with some INs counted."""
    return Report(state, "", (0, port_in, 0, 0, 0, 0), 0, 0, 0, 0)


class GuestPeer:
    """A guest's end of the session.

    Args:
        bench: Where its frames go.
        name: Its name.
        epoch: Its life.
    """

    def __init__(self, bench: Bench, name: str, epoch: int = 1) -> None:
        self.address = f"{name}/{epoch}".encode()
        self.opener = Opener(SessionConfig(Role.GUEST, name, epoch, lease_ms=LEASE_MS), "hv")
        self.received: list[tuple[Message, Sequence[Buffer]]] = []
        self.lines: dict[int, int] = {}
        self.number = 0
        self._bench = bench

    def send(self, body: Message, *payload: bytes) -> None:
        """Send any message; what comes back is in `received`."""
        self._bench.from_guest(self, self.opener.send(body, payload, self._bench.now_ns).frames)

    def trap(self, kind: TrapKind, address: int, width: int = 1, value: int = 0) -> TrapReply | None:
        """Raise a trap; returns the reply, None if there is none yet."""
        self.number += 1
        self.send(trap(kind, address, width, value, number=self.number))
        return self.reply(self.number)

    def inb(self, port: int) -> int:
        """IN of a byte, which must be answered at once."""
        answer = self.trap(TrapKind.PORT_IN, port)
        assert answer is not None, f"IN from {port:#x} is not answered"
        return answer.value

    def outb(self, port: int, value: int) -> TrapReply | None:
        """OUT of a byte."""
        return self.trap(TrapKind.PORT_OUT, port, 1, value)

    def reply(self, number: int) -> TrapReply | None:
        """The reply to a trap."""
        replies = [body for body, _ in self.received if isinstance(body, TrapReply) and body.number == number]
        return replies[-1] if replies else None

    def bodies(self, kind: type[Message]) -> list[Message]:
        """Messages of one type that have come."""
        return [body for body, _ in self.received if isinstance(body, kind)]

    def take(self, frames: Frames) -> list[SessionOutput]:
        """Receive a message."""
        outputs = self.opener.receive(frames, self._bench.now_ns)
        self.received += [(output.body, output.payload) for output in outputs if isinstance(output, Delivered)]
        return outputs


class Pending(NamedTuple):
    """A command that a controller has and has not completed."""

    command: Command
    data: bytes


class ControllerPeer:
    """A controller's end of a queue pair: identifies by itself, completes anything else when told.

    Args:
        bench: Where its frames go.
        name: Its name.
        units: What it identifies.
        epoch: Its life.
    """

    def __init__(self, bench: Bench, name: str, units: dict[str, UnitIdentity], epoch: int = 1) -> None:
        config = SessionConfig(Role.CONTROLLER, name, epoch, credits=8, lease_ms=LEASE_MS)
        self.acceptor = Acceptor(config, lambda _hello: None)
        self.name = name
        self.units = units
        self.pending: list[Pending] = []
        self.batches: list[int] = []
        self._bench = bench
        self._interrupts = 0

    def take(self, frames: Frames) -> list[SessionOutput]:
        """Receive a message."""
        outputs = self.acceptor.receive(b"hv", frames, self._bench.now_ns)
        for output in outputs:
            if isinstance(output, Delivered) and isinstance(output.body, Submit):
                self._submitted(output.body, output.payload)
        return outputs

    def complete(self, command: Command, status: Status = Status.OK, data: bytes = b"", value: int = 0) -> None:
        """Complete a command."""
        self.pending = [pending for pending in self.pending if pending.command.id != command.id]
        self.send(pack_completions([Completion(command.id, status, len(data), value)]), *([data] if data else []))

    def send(self, completions: bytes, *payload: bytes) -> None:
        """Send any bytes as completions."""
        self._interrupts += 1
        message = Complete(self._interrupts, completions)
        self._bench.from_controller(self.name, self.acceptor.send(b"hv", message, payload, self._bench.now_ns).frames)

    def waiting(self, opcode: Opcode) -> list[Pending]:
        """Commands with this opcode that are not completed."""
        return [pending for pending in self.pending if pending.command.opcode is opcode]

    def _submitted(self, submit: Submit, payload: Sequence[Buffer]) -> None:
        commands = unpack_commands(submit.commands)
        self.batches.append(len(commands))
        data = iter(command_data(commands, payload))
        for command in commands:
            carries = command.opcode in (Opcode.IDENTIFY, Opcode.WRITE, Opcode.CONSOLE_TRANSMIT)
            self.pending.append(Pending(command, bytes(next(data)) if carries else b""))
        for pending in self.waiting(Opcode.IDENTIFY):
            name = pending.data.decode()
            known = name in self.units
            status, answer = (Status.OK, self.units[name].pack()) if known else (Status.UNKNOWN_UNIT, b"")
            self.complete(pending.command, status, answer, list(self.units).index(name) if known else 0)


class Bench:
    """A hypervisor and its surroundings, all messages delivered at once; time moves when told.

    Args:
        guests: Names; each has a unit of its name at both controllers.
        machine: Machine type of all guests.
        level: Where their disks are intercepted.
    """

    def __init__(
        self, guests: tuple[str, ...] = ("alice",), machine: str = "pc", level: Level = Level.OPERATION
    ) -> None:
        self.now_ns = SECOND
        self.pairs = {name: QueuePair(name) for name in ("disk0", "tty0")}
        plans = {
            name: GuestPlan(
                name,
                machine,
                32 << 20,
                Attachment(self.pairs["disk0"], name),
                Attachment(self.pairs["tty0"], name),
                level=level,
            )
            for name in guests
        }
        self.core = Hypervisor(hv.HypervisorConfig("hv", 7, LEASE_MS, 0, plans, self.pairs))
        self.names = guests
        self.log: list[str] = []
        self.performed: list[hv.Action] = []
        self.guests: dict[bytes, GuestPeer] = {}
        self.controllers: dict[str, ControllerPeer] = {}
        self.handle(hv.Started())

    def handle(self, event: hv.Event) -> None:
        """Hand in an event, and deliver what comes of it."""
        for action in self.core.handle(event, self.now_ns):
            self.performed.append(action)
            if isinstance(action, hv.Note):
                self.log.append(action.text)
            elif isinstance(action, hv.SendToController):
                controller = self.controllers.get(action.controller)
                if controller is not None and action.frames:
                    self._answer_controller(controller, controller.take(action.frames))
            elif isinstance(action, hv.SendToGuest) and action.peer in self.guests and action.frames:
                guest = self.guests[action.peer]
                self._answer_guest(guest, guest.take(action.frames))

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass in steps no longer than a quarter lease, as runtimes do."""
        end_ns = self.now_ns + duration_ns
        while self.now_ns < end_ns:
            due_ns = self.core.deadline_ns()
            step_ns = min(end_ns, self.now_ns + 100 * MS)
            self.now_ns = step_ns if due_ns is None else max(min(step_ns, due_ns), self.now_ns + 1)
            self.handle(hv.TimerFired())
            for guest in list(self.guests.values()):
                self._answer_guest(guest, guest.opener.tick(self.now_ns))
            for controller in list(self.controllers.values()):
                self._answer_controller(controller, controller.acceptor.tick(self.now_ns))

    def guest(self, name: str = "alice", epoch: int = 1) -> GuestPeer:
        """Connect a guest."""
        guest = GuestPeer(self, name, epoch)
        self.guests[guest.address] = guest
        self._answer_guest(guest, guest.opener.start(self.now_ns))
        return guest

    def controller(self, name: str, units: dict[str, UnitIdentity] | None = None, epoch: int = 1) -> ControllerPeer:
        """Start a controller (again) and wait until the hypervisor has found it."""
        if units is None:
            units = dict.fromkeys(self.names, DISK if name == "disk0" else TERMINAL)
        controller = self.controllers[name] = ControllerPeer(self, name, units, epoch)
        self.pass_time(3 * SECOND)
        return controller

    def from_guest(self, guest: GuestPeer, frames: Frames) -> None:
        """Deliver a guest's frames."""
        if frames:
            self.handle(hv.GuestFramesReceived(guest.address, frames))

    def from_controller(self, name: str, frames: Frames) -> None:
        """Deliver a controller's frames."""
        if frames:
            self.handle(hv.ControllerFramesReceived(name, frames))

    def _answer_guest(self, guest: GuestPeer, outputs: Sequence[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, SendFrames):
                self.from_guest(guest, output.frames)

    def _answer_controller(self, controller: ControllerPeer, outputs: Sequence[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, SendFrames):
                self.from_controller(controller.name, output.frames)


def complete_bench(guests: tuple[str, ...] = ("alice",), machine: str = "pc", level: Level = Level.OPERATION) -> Bench:
    """A bench whose controllers are there."""
    bench = Bench(guests, machine, level)
    bench.controller("disk0")
    bench.controller("tty0")
    return bench
