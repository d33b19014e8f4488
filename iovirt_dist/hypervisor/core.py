"""The hypervisor: guests on one side, controllers on the other, the rooms in between.

Theory of operation. `handle` takes what arrived, walks it through the rooms, and returns what must be sent. What comes
from guests goes through `guest_side` and their virtual machines; requests that virtual devices made on the way are
gathered and leave at the end of the step through `controller_side`, as one batch per controller.
"""

from __future__ import annotations

from iovirt_dist.hypervisor.controller_side import ControllerSide
from iovirt_dist.hypervisor.events import (
    Action,
    ControllerFramesReceived,
    Event,
    GuestAdded,
    GuestFramesReceived,
    GuestRemoved,
    HypervisorConfig,
    QosChanged,
    Started,
    StopRequested,
    TimerFired,
)
from iovirt_dist.hypervisor.guest_side import GuestSide
from iovirt_dist.hypervisor.outbox import Outbox
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

GUEST_CREDITS = 64


class Hypervisor:
    """Sans-IO core of a hypervisor process.

    Args:
        config: What it serves.

    Attributes:
        config: What it served at first.
        guests: Its guests by name.
        acceptor: Their sessions.
        openers: Sessions with controllers, by name.
    """

    def __init__(self, config: HypervisorConfig) -> None:
        own = SessionConfig(Role.HYPERVISOR, config.name, config.epoch, credits=GUEST_CREDITS, lease_ms=config.lease_ms)
        self._outbox = Outbox()
        self._guest_side = GuestSide(config, own, self._outbox)
        self._controller_side = ControllerSide(config, own, self._outbox, self._guest_side)
        self._tracing = False
        self.config = config
        self.guests = self._guest_side.guests
        self.acceptor = self._guest_side.acceptor
        self.openers = self._controller_side.openers

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        self._outbox.begin()
        if isinstance(event, GuestFramesReceived):
            self._guest_side.received(event, now_ns)
        elif isinstance(event, ControllerFramesReceived):
            self._controller_side.received(event, now_ns)
        elif isinstance(event, TimerFired):
            self._tick(now_ns)
        elif isinstance(event, StopRequested):
            self._guest_side.outputs(self.acceptor.close(event.reason, now_ns), now_ns)
            self._controller_side.close(event.reason, now_ns)
            return self._outbox.actions
        else:
            self._seldom(event, now_ns)
        submits = self._controller_side.submit(now_ns)
        # a device starts before the answer to its register's write travels
        decided = self._outbox.actions
        first, then = (submits, decided) if isinstance(event, GuestFramesReceived) else (decided, submits)
        actions = first + then
        if self._tracing:  # a point's time is before that of what others make of it
            actions[:0] = self._guest_side.points()
        return actions

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due; ask once for a batch of events."""
        self._guest_side.note_deadlines()
        self._controller_side.note_deadlines()
        return self._outbox.deadline_ns

    def trace(self, on: bool) -> None:
        """Give a `TracePoint` for each trap, request and command from now on, or no more."""
        self._tracing = self._controller_side.tracing = on
        self._guest_side.trace(on)

    def _seldom(self, event: Started | QosChanged | GuestAdded | GuestRemoved, now_ns: int) -> None:
        """Take what people cause."""
        if isinstance(event, QosChanged):
            self._guest_side.qos_changed(event, now_ns)
        elif isinstance(event, GuestAdded):
            self._guest_side.added(event)
        elif isinstance(event, GuestRemoved):
            self._guest_side.removed(event)
        else:
            self._controller_side.start(now_ns)
            self._tick(now_ns)

    def _tick(self, now_ns: int) -> None:
        """Let everything go on that waits for this time."""
        self._outbox.deadline_ns = None
        self._controller_side.tick(now_ns)
        self._guest_side.tick(now_ns)
