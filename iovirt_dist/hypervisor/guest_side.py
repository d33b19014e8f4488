"""The guests' side of a hypervisor: their sessions, what they raise, and what they are sent.

Theory of operation. A guest whose units are not identified yet is kept waiting: its traps stay in a bounded backlog and
are walked once its machine is built. Interrupt lines that changed ride on the trap's reply, or go alone where no reply
is due. Completions wait for a guest that does not acknowledge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from iovirt_dist.errors import ConfigError, WindowFullError
from iovirt_dist.hypervisor.events import GuestAdded, GuestFramesReceived, GuestRemoved, HypervisorConfig, QosChanged
from iovirt_dist.hypervisor.guest import Guest
from iovirt_dist.hypervisor.outbox import Outbox
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
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
from iovirt_dist.wire.session import Delivered, Lost, Opened, SendFrames, SessionConfig, SessionOutput
from iovirt_dist.wire.syscall_messages import SystemCall

GUEST_WINDOW = 1024
"""Unacknowledged messages kept for a guest: `COMPLETIONS_UNACKNOWLEDGED`, and what may come on top: replies, changes of
lines, queues that are armed, and the completions that left together."""

LINES_UNACKNOWLEDGED = 128
"""Unacknowledged messages at which changes of interrupt lines wait: they are counts, so the next one says it all."""

ASK_AGAIN_NS = 1_000_000_000
"""How soon a controller is asked again for a unit that it does not have."""

RETRY_NS = 10_000_000
"""How soon lines and completions that wait are tried again."""


class GuestSide:
    """A hypervisor's guests.

    Args:
        config: What it serves.
        own: Settings of its sessions.
        outbox: Takes actions and deadlines.

    Attributes:
        acceptor: The guests' sessions.
        guests: By name.
    """

    def __init__(self, config: HypervisorConfig, own: SessionConfig, outbox: Outbox) -> None:
        self.acceptor = Acceptor(replace(own, window=GUEST_WINDOW), self._refusal)
        self.guests: dict[str, Guest] = {}
        self._wall_minus_monotonic_ns = config.wall_minus_monotonic_ns
        self._outbox = outbox
        self._by_peer: dict[bytes, Guest] = {}
        self._by_instance: dict[int, Guest] = {}
        self._last_instance = 0
        self._touched: list[Guest] = []
        self._tracing = False
        for plan in config.plans.values():
            self.added(GuestAdded(plan))

    def received(self, event: GuestFramesReceived, now_ns: int) -> None:
        """Take a message of a guest."""
        self.outputs(self.acceptor.receive(event.peer, event.frames, now_ns), now_ns)
        guest = self._by_peer.get(event.peer)
        if guest is not None and guest.crowded:  # this may have been the acknowledgement that completions wait for
            self._send_outgoing(guest, now_ns)

    def completed(self, now_ns: int, instances: Collection[int] | None = None) -> None:
        """Requests have ended, or a link is up or down: tell guests, let drivers go on, build machines that waited.

        Args:
            now_ns: Monotonic time.
            instances: Whose requests ended; None for whoever it may concern.
        """
        for guest in self.guests.values() if instances is None else self._of(instances):
            vm = guest.vm
            if vm.machine is not None:
                vm.drivers.flush(now_ns)
                self._send_outgoing(guest, now_ns)
                self._send_lines(guest, now_ns)
                self._outbox.lower_deadline(vm.deadline_ns())  # what arrived may have started a timer
            elif guest.connected and not guest.off:
                self._try_power_on(guest, now_ns)

    def tick(self, now_ns: int) -> None:
        """Let sessions and machines go on that wait for this time, and note all deadlines anew."""
        self.outputs(self.acceptor.tick(now_ns), now_ns)
        for guest in self.guests.values():
            if guest.ask_ns:
                self._ask_again(guest, now_ns)
            due = guest.vm.deadline_ns()
            if due is not None and due <= now_ns:
                guest.vm.advance(now_ns)
            self._send_outgoing(guest, now_ns)
            self._send_lines(guest, now_ns)
            self._outbox.lower_deadline(guest.vm.deadline_ns())

    def note_deadlines(self) -> None:
        """Any message may have brought a session's deadline forward, and any trap its machine's."""
        self._outbox.lower_deadline(self.acceptor.deadline_ns())
        for guest in self._touched:
            self._outbox.lower_deadline(guest.vm.deadline_ns())
        self._touched.clear()

    def trace(self, on: bool) -> None:
        """Make trace points from now on, or no more."""
        self._tracing = on
        for guest in self.guests.values():
            guest.vm.tracer.on = on

    def points(self) -> list[TracePoint]:
        """Take the trace points that guests' machines have made."""
        return [point for guest in self.guests.values() for point in guest.vm.tracer.take()]

    def owners(self) -> dict[int, str]:
        """Names by instance number: of guests' machines, and of their drivers that outlive these."""
        return {instance: guest.vm.plan.name for instance, guest in self._by_instance.items()}

    # --- guests come and go

    def added(self, event: GuestAdded) -> None:
        """Serve a guest from now on; one of that name goes first."""
        plan = event.plan
        if plan.name in self.guests:
            self.removed(GuestRemoved(plan.name))
        guest = Guest(VirtualMachine(plan, self._new_instance()))
        guest.vm.tracer.on = self._tracing
        self.guests[plan.name] = self._by_instance[guest.vm.terminal_instance] = guest

    def removed(self, event: GuestRemoved) -> None:
        """Serve a guest no more: its machine is gone, and what it asked for completes into nothing."""
        guest = self.guests.pop(event.guest, None)
        if guest is None:
            return
        self._power_off(guest)
        guest.vm.remove()
        del self._by_instance[guest.vm.terminal_instance]
        if self._by_peer.get(guest.peer) is guest:
            del self._by_peer[guest.peer]
        self._touched = [touched for touched in self._touched if touched is not guest]
        self._outbox.note(f"guest {event.guest} removed")

    def _of(self, instances: Collection[int]) -> Iterator[Guest]:
        """Guests by instance numbers, each once; what belongs to nobody any more is left out."""
        found = {id(guest): guest for number in instances if (guest := self._by_instance.get(number)) is not None}
        return iter(found.values())

    def _new_instance(self) -> int:
        self._last_instance += 1
        return self._last_instance

    def _power_off(self, guest: Guest) -> None:
        self._by_instance.pop(guest.vm.instance, None)
        guest.vm.power_off()

    # --- what comes from guests

    def outputs(self, outputs: Sequence[SessionOutput], now_ns: int) -> None:
        """Take what sessions with guests gave."""
        for output in outputs:
            if isinstance(output, Delivered):
                guest = self._by_peer.get(output.peer)
                if guest is None:
                    continue
                if guest.reset_by and guest.is_old(output.acknowledged) and not isinstance(output.body, Report):
                    guest.vm.count_raised(output.body)
                else:
                    self._message(guest, output.body, output.payload, now_ns)
            elif isinstance(output, SendFrames):
                self._outbox.append(output)
            elif isinstance(output, Opened):
                self._opened(output, now_ns)
            elif isinstance(output, Lost):
                self._lost(output)

    def _refusal(self, hello: Hello) -> str | None:
        if hello.role is not Role.GUEST:
            return "not-a-guest"
        return None if hello.name in self.guests else "unknown-name"

    def _opened(self, opened: Opened, now_ns: int) -> None:
        guest = self.guests[opened.name]
        self._by_peer.pop(guest.peer, None)
        guest.peer, guest.connected, guest.deaf = opened.peer, True, False
        self._by_peer[opened.peer] = guest
        if opened.resumed and opened.epoch == guest.epoch:
            self._outbox.note(f"guest {opened.name} is back")
            if guest.vm.machine is None and not guest.off:  # its units may have been found while it was away
                self._try_power_on(guest, now_ns)
            self._send_outgoing(guest, now_ns)
            self._send_lines(guest, now_ns)
            return
        guest.epoch = opened.epoch
        guest.off, guest.reset_by = False, 0
        guest.backlog.take()
        self._power_off(guest)
        guest.vm.forget_counts()
        self._outbox.note(f"guest {opened.name} connected")
        self._try_power_on(guest, now_ns)

    def _lost(self, lost: Lost) -> None:
        guest = self.guests.get(lost.name)
        if guest is None:  # it was removed, and its process ends now
            return
        guest.connected = False
        self._outbox.note(f"guest {lost.name} lost: {lost.reason}")

    def _try_power_on(self, guest: Guest, now_ns: int) -> None:
        """Build the guest's machine if all its units are known, then walk what waited for it."""
        waiting = guest.vm.drivers.waiting_for()
        if not waiting:
            self._power_off(guest)
            instance = self._new_instance()
            self._by_instance[instance] = guest
            try:
                guest.vm.power_on(instance, now_ns + self._wall_minus_monotonic_ns, now_ns)
            except ConfigError as error:
                waiting = str(error)
        if waiting and waiting != guest.waiting:
            self._outbox.note(f"guest {guest.vm.plan.name}: {waiting}")
        guest.waiting = waiting
        if waiting:
            guest.ask_ns = guest.ask_ns or now_ns + ASK_AGAIN_NS
            self._outbox.lower_deadline(guest.ask_ns)
            return
        guest.ask_ns = 0
        for body, payload in guest.backlog.take():
            self._message(guest, body, payload, now_ns)
        self._send_outgoing(guest, now_ns)
        self._touched.append(guest)

    def _ask_again(self, guest: Guest, now_ns: int) -> None:
        """Ask for units that a controller did not have: it may learn of a new guest later than its hypervisor."""
        if guest.ask_ns <= now_ns:
            guest.ask_ns = now_ns + ASK_AGAIN_NS if guest.connected and guest.vm.drivers.ask_again() else 0
        if guest.ask_ns:
            self._outbox.lower_deadline(guest.ask_ns)

    def _message(self, guest: Guest, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        vm = guest.vm
        if vm.machine is None and not guest.off:
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
        self._power_off(guest)
        self._outbox.note(f"guest {vm.plan.name}: {power.action.name.lower().replace('_', ' ')} by {power.reason}")
        self._send(guest, power, (), now_ns)
        guest.off = power.action is PowerAction.POWER_OFF
        if not guest.off:
            stream = self.acceptor.stream(vm.plan.name)
            guest.reset_by = stream.last_out if stream is not None else 0
            self._try_power_on(guest, now_ns)

    def qos_changed(self, event: QosChanged, now_ns: int) -> None:
        """Let a guest have more or less of a device; what waits for the old limit is looked at in this step."""
        guest = self.guests.get(event.guest)
        attachment = guest.vm.plan.shared(event.device) if guest is not None else None
        if attachment is None:
            self._outbox.note(f"guest {event.guest}: no device '{event.device}' to set anything for")
            return
        attachment.queue_pair.queue.set_qos(event.guest, event.qos, now_ns)
        self._outbox.note(f"guest {event.guest}: {event.device} has {event.qos}")

    # --- what goes to guests

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
            self._outbox.lower_deadline(now_ns + RETRY_NS)
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
            self._outbox.lower_deadline(now_ns + RETRY_NS)
            return
        changes = machine.lines.take_changes()
        for at in range(0, len(changes), 2):
            self._send(guest, Interrupt(changes[at], changes[at + 1]), (), now_ns)

    def _send(self, guest: Guest, body: Message, payload: Sequence[Buffer], now_ns: int) -> None:
        try:
            self._outbox.append(self.acceptor.send(guest.peer, body, payload, now_ns))
        except WindowFullError as error:
            if not guest.deaf:
                self._outbox.note(f"guest {guest.vm.plan.name} takes no messages: {error}")
            guest.deaf = True
