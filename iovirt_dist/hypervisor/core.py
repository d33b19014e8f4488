"""The hypervisor: guests on one side, controllers on the other, the rooms in between.

Theory of operation. `handle` takes what arrived, walks it through the rooms, and returns what must be sent. Requests
that virtual devices made on the way are gathered and leave at the end of the step as one batch per controller.
Interrupt lines that changed ride on the trap's reply, or go alone where no reply is due. A guest whose units are not
identified yet is kept waiting: its traps stay in a bounded backlog and are walked once its machine is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.errors import ConfigError, DecodeError, WindowFullError
from iovirt_dist.hypervisor.events import (
    Action,
    ControllerFramesReceived,
    Event,
    GuestFramesReceived,
    HypervisorConfig,
    Note,
    QosChanged,
    SendToController,
    Started,
    TimerFired,
)
from iovirt_dist.hypervisor.guest import Guest
from iovirt_dist.hypervisor.tracing import submit_points
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    Complete,
    Hello,
    Interrupt,
    Message,
    Power,
    PowerAction,
    PrefetchRead,
    Report,
    Role,
    Trap,
)
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput
from iovirt_dist.wire.syscall_messages import SystemCall

GUEST_CREDITS = 64

GUEST_WINDOW = 1024
"""Unacknowledged messages kept for a guest: `COMPLETIONS_UNACKNOWLEDGED`, and what may come on top: replies, changes of
lines, queues that are armed, and the completions that left together."""

LINES_UNACKNOWLEDGED = 128
"""Unacknowledged messages at which changes of interrupt lines wait: they are counts, so the next one says it all."""

RETRY_NS = 10_000_000
"""How soon lines and completions that wait are tried again."""

SUBMITS_UNACKNOWLEDGED = 3072
"""Unacknowledged messages at which nothing is submitted to a controller, below the session's window of 4096."""


class Hypervisor:
    """Sans-IO core of a hypervisor process.

    Args:
        config: What it serves.
    """

    def __init__(self, config: HypervisorConfig) -> None:
        self.config = config
        own = SessionConfig(Role.HYPERVISOR, config.name, config.epoch, credits=GUEST_CREDITS, lease_ms=config.lease_ms)
        self.acceptor = Acceptor(replace(own, window=GUEST_WINDOW), self._refusal)
        self.openers = {name: Opener(own, name) for name in config.controllers}
        self.guests = {name: Guest(VirtualMachine(plan, n + 1)) for n, (name, plan) in enumerate(config.plans.items())}
        self._sessions: tuple[Acceptor | Opener, ...] = (self.acceptor, *self.openers.values())
        self._by_peer: dict[bytes, Guest] = {}
        self._next_instance = len(self.guests) + 1
        self._deadline_ns: int | None = None
        self._tracing = False
        self._touched: list[Guest] = []
        self._actions: list[Action] = []

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        self._actions = []
        if isinstance(event, GuestFramesReceived):
            self._guest_outputs(self.acceptor.receive(event.peer, event.frames, now_ns), now_ns)
            guest = self._by_peer.get(event.peer)
            if guest is not None and guest.crowded:  # this may have been the acknowledgement that completions wait for
                self._send_outgoing(guest, now_ns)
        elif isinstance(event, ControllerFramesReceived):
            name = event.controller
            self._controller_outputs(name, self.openers[name].receive(event.frames, now_ns), now_ns)
        elif isinstance(event, TimerFired):
            self._tick(now_ns)
        elif isinstance(event, QosChanged):
            self._qos_changed(event, now_ns)
        elif isinstance(event, Started):
            for name, opener in self.openers.items():
                self._controller_outputs(name, opener.start(now_ns), now_ns)
            self._tick(now_ns)
        else:
            self._guest_outputs(self.acceptor.close(event.reason, now_ns), now_ns)
            for name, opener in self.openers.items():
                self._controller_outputs(name, opener.close(event.reason, now_ns), now_ns)
            return self._actions
        submits = self._submit_batches(now_ns)
        # a device starts before the answer to its register's write travels
        first, then = (submits, self._actions) if isinstance(event, GuestFramesReceived) else (self._actions, submits)
        actions = first + then
        if self._tracing:  # a point's time is before that of what others make of it
            actions[:0] = [point for guest in self.guests.values() for point in guest.vm.tracer.take()]
        return actions

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due; ask once for a batch of events."""
        for session in self._sessions:
            self._lower_deadline(session.deadline_ns())  # any message may have brought it forward
        for guest in self._touched:
            self._lower_deadline(guest.vm.deadline_ns())  # and so may any trap
        self._touched.clear()
        return self._deadline_ns

    def trace(self, on: bool) -> None:
        """Give a `TracePoint` for each trap, request and command from now on, or no more."""
        self._tracing = on
        for guest in self.guests.values():
            guest.vm.tracer.on = on

    # --- guests

    def _qos_changed(self, event: QosChanged, now_ns: int) -> None:
        """Let a guest have more or less of a device; what waits for the old limit is looked at in this step."""
        guest = self.guests.get(event.guest)
        attachment = guest.vm.plan.shared(event.device) if guest is not None else None
        if attachment is None:
            self._note(f"guest {event.guest}: no device '{event.device}' to set anything for")
            return
        attachment.queue_pair.queue.set_qos(event.guest, event.qos, now_ns)
        self._note(f"guest {event.guest}: {event.device} has {event.qos}")

    def _refusal(self, hello: Hello) -> str | None:
        if hello.role is not Role.GUEST:
            return "not-a-guest"
        return None if hello.name in self.guests else "unknown-name"

    def _guest_outputs(self, outputs: Sequence[SessionOutput], now_ns: int) -> None:
        for output in outputs:
            if isinstance(output, Delivered):
                guest = self._by_peer.get(output.peer)
                if guest is not None:
                    self._guest_message(guest, output.body, output.payload, now_ns)
            elif isinstance(output, SendFrames):
                self._actions.append(output)
            elif isinstance(output, Opened):
                self._guest_opened(output, now_ns)
            elif isinstance(output, Lost):
                self._guest_lost(output)

    def _guest_opened(self, opened: Opened, now_ns: int) -> None:
        guest = self.guests[opened.name]
        self._by_peer.pop(guest.peer, None)
        guest.peer, guest.connected, guest.deaf = opened.peer, True, False
        self._by_peer[opened.peer] = guest
        if opened.resumed and opened.epoch == guest.epoch:
            self._note(f"guest {opened.name} is back")
            self._send_outgoing(guest, now_ns)
            self._send_lines(guest, now_ns)
            return
        guest.epoch = opened.epoch
        guest.off, guest.reset_by = False, 0
        guest.backlog.take()
        guest.vm.power_off()
        guest.vm.forget_counts()
        self._note(f"guest {opened.name} connected")
        self._try_power_on(guest, now_ns)

    def _guest_lost(self, lost: Lost) -> None:
        guest = self.guests[lost.name]
        guest.connected = False
        self._note(f"guest {lost.name} lost: {lost.reason}")

    def _try_power_on(self, guest: Guest, now_ns: int) -> None:
        """Build the guest's machine if all its units are known, then walk what waited for it."""
        waiting = guest.vm.drivers.waiting_for()
        if not waiting:
            self._next_instance += 1
            try:
                guest.vm.power_on(self._next_instance, now_ns + self.config.wall_minus_monotonic_ns, now_ns)
            except ConfigError as error:
                waiting = str(error)
        if waiting and waiting != guest.waiting:
            self._note(f"guest {guest.vm.plan.name}: {waiting}")
        guest.waiting = waiting
        if waiting:
            return
        for body, payload in guest.backlog.take():
            self._guest_message(guest, body, payload, now_ns)
        self._send_outgoing(guest, now_ns)
        self._touched.append(guest)

    def _guest_message(self, guest: Guest, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        vm = guest.vm
        if guest.reset_by and guest.is_old(self.acceptor.stream(vm.plan.name)) and not isinstance(body, Report):
            vm.count_raised(body)
        elif vm.machine is None and not guest.off:
            if not guest.backlog.add(body, payload):
                vm.counts.malformed += 1
                vm.count_raised(body)
        elif vm.machine is None and not isinstance(body, Report):
            vm.count_raised(body)
        elif isinstance(body, Trap):
            self._trap(guest, body, payload, now_ns)
        elif isinstance(body, PrefetchRead):
            vm.prefetch_read(body, now_ns)
        elif isinstance(body, Report):
            vm.reported(body)
            self._touched.append(guest)
        elif guest.crowded and isinstance(body, SystemCall) and not self._look_for_room(guest, now_ns):
            vm.counts.malformed += 1  # a call acknowledges the reply to the last one, whose data need not be kept
            vm.count_raised(body)
        else:
            vm.message(body, payload, now_ns)
            self._touched.append(guest)
            self._send_outgoing(guest, now_ns)
            self._send_lines(guest, now_ns)

    def _trap(self, guest: Guest, trap: Trap, payload: Sequence[Buffer], now_ns: int) -> None:
        vm = guest.vm
        machine = vm.machine
        assert machine is not None
        self._touched.append(guest)
        reply, data = vm.trap(trap, payload, now_ns)
        self._send_outgoing(guest, now_ns)
        if vm.power is not None:
            self._power(guest, vm.power, now_ns)
        elif reply is None:
            self._send_lines(guest, now_ns)
        else:
            self._send(guest, reply, (data,) if data else (), now_ns)

    def _power(self, guest: Guest, power: Power, now_ns: int) -> None:
        """Switch the machine as its own hardware asked; the guest voids the trap that waits."""
        vm = guest.vm
        vm.power_off()
        self._note(f"guest {vm.plan.name}: {power.action.name.lower().replace('_', ' ')} by {power.reason}")
        self._send(guest, power, (), now_ns)
        guest.off = power.action is PowerAction.POWER_OFF
        if not guest.off:
            stream = self.acceptor.stream(vm.plan.name)
            guest.reset_by = stream.last_out if stream is not None else 0
            self._try_power_on(guest, now_ns)

    def _send_outgoing(self, guest: Guest, now_ns: int) -> None:
        """Send what the guest's interceptors have for it, before anything that could tell of it.

        Completions wait while the guest has not acknowledged what it got: what is kept for it is bounded, and of what
        is sent nothing is lost.
        """
        if guest.crowded:
            self._look_for_room(guest, now_ns)
        messages = guest.vm.outgoing(now_ns)
        for body, payload in messages:
            self._send(guest, body, payload, now_ns)
        if messages:
            self._look_for_room(guest, now_ns)

    def _look_for_room(self, guest: Guest, now_ns: int) -> bool:
        """Note whether completions must wait: while the guest is away they wait for it, else they are tried again.

        Returns:
            Whether there is room for more.
        """
        guest.look_for_room(self.acceptor.stream(guest.vm.plan.name))
        if guest.crowded and guest.connected:
            self._lower_deadline(now_ns + RETRY_NS)
        return not guest.crowded

    def _send_lines(self, guest: Guest, now_ns: int) -> None:
        """Send the interrupt lines that changed with no reply to ride on; they wait while the guest is away."""
        machine = guest.vm.machine
        if machine is None or not guest.connected:
            return
        if not machine.lines.changed:
            return
        stream = self.acceptor.stream(guest.vm.plan.name)
        if stream is not None and stream.unacknowledged() >= LINES_UNACKNOWLEDGED:
            self._lower_deadline(now_ns + RETRY_NS)
            return
        changes = machine.lines.take_changes()
        for at in range(0, len(changes), 2):
            self._send(guest, Interrupt(changes[at], changes[at + 1]), (), now_ns)

    def _send(self, guest: Guest, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        try:
            self._actions.append(self.acceptor.send(guest.peer, body, payload, now_ns))
        except WindowFullError as error:
            if not guest.deaf:
                self._note(f"guest {guest.vm.plan.name} takes no messages: {error}")
            guest.deaf = True

    # --- controllers

    def _controller_outputs(self, name: str, outputs: Sequence[SessionOutput], now_ns: int) -> None:
        queue_pair = self.config.controllers[name]
        for output in outputs:
            if isinstance(output, Delivered):
                self._controller_message(queue_pair, output, now_ns)
            elif isinstance(output, SendFrames):
                self._actions.append(SendToController(name, output.frames))
            elif isinstance(output, Opened):
                queue_pair.opened(output.credits, output.resumed)
                self._note(f"controller {name} connected")
                self._completed(now_ns)
            elif isinstance(output, Lost):
                queue_pair.lost()
                self._note(f"controller {name} lost: {output.reason}; {queue_pair.in_flight} requests wait for it")
                self._completed(now_ns)
            elif isinstance(output, Rejected):
                self._note(f"controller {name}: message refused: {output.reason}")

    def _controller_message(self, queue_pair: QueuePair, delivered: Delivered, now_ns: int) -> None:
        if not isinstance(delivered.body, Complete):
            return
        try:
            queue_pair.complete(delivered.body, delivered.payload, now_ns)
        except DecodeError as error:
            self._note(f"controller {queue_pair.controller}: completions refused: {error}")
            return
        self._actions += map(Note, queue_pair.notes)
        queue_pair.notes.clear()
        self._completed(now_ns)

    def _completed(self, now_ns: int) -> None:
        """Requests have ended, or a link is up or down: tell guests, let drivers go on, build machines that waited."""
        for guest in self.guests.values():
            vm = guest.vm
            if vm.machine is not None:
                vm.drivers.flush(now_ns)
                self._send_outgoing(guest, now_ns)
                self._send_lines(guest, now_ns)
                self._lower_deadline(vm.drivers.retry_ns)
            elif guest.connected and not guest.off:
                self._try_power_on(guest, now_ns)

    def _submit_batches(self, now_ns: int) -> list[Action]:
        """Gather what virtual devices asked for during this step, one batch per controller."""
        submits: list[Action] = []
        for name, queue_pair in self.config.controllers.items():
            if not queue_pair.pending:
                continue
            opener = self.openers[name]
            while opener.open and opener.stream.unacknowledged() < SUBMITS_UNACKNOWLEDGED:
                batch = queue_pair.take_batch(now_ns)
                if batch is None:
                    break
                if self._tracing:  # first, so that the controller's points are later ones
                    submits += submit_points(name, batch[0], self._owners())
                submits.append(SendToController(name, opener.send(*batch, now_ns).frames))
            ready_ns = queue_pair.ready_ns()
            if ready_ns is not None and ready_ns > now_ns:  # else it waits for credit, which comes with a message
                self._lower_deadline(ready_ns)
            if queue_pair.refused:
                queue_pair.settle(now_ns)
                self._completed(now_ns)
        return submits

    def _owners(self) -> dict[int, str]:
        """Guests by instance number: of their machines, and of their terminals, which outlive these."""
        terminals = dict(enumerate(self.guests, 1))
        return terminals | {guest.vm.instance: name for name, guest in self.guests.items() if guest.vm.instance}

    # --- time

    def _tick(self, now_ns: int) -> None:
        self._guest_outputs(self.acceptor.tick(now_ns), now_ns)
        for name, opener in self.openers.items():
            self._controller_outputs(name, opener.tick(now_ns), now_ns)
        self._deadline_ns = None
        for guest in self.guests.values():
            due = guest.vm.deadline_ns()
            if due is not None and due <= now_ns:
                guest.vm.advance(now_ns)
            self._send_outgoing(guest, now_ns)
            self._send_lines(guest, now_ns)
            self._lower_deadline(guest.vm.deadline_ns())

    def _lower_deadline(self, at_ns: int | None) -> None:
        if at_ns is not None and (self._deadline_ns is None or at_ns < self._deadline_ns):
            self._deadline_ns = at_ns

    def _note(self, text: str) -> None:
        self._actions.append(Note(text))
