"""The controllers' side of a hypervisor: sessions with them, batches of commands out, completions back."""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.drivers.queue_pair import OWN, QueuePair
from iovirt_dist.errors import DecodeError
from iovirt_dist.hypervisor.events import Action, ControllerFramesReceived, HypervisorConfig, SendToController
from iovirt_dist.hypervisor.guest_side import GuestSide
from iovirt_dist.hypervisor.outbox import Outbox
from iovirt_dist.hypervisor.tracing import submit_points
from iovirt_dist.wire.messages import Complete, UnitsChanged
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput

SUBMITS_UNACKNOWLEDGED = 3072
"""Unacknowledged messages at which nothing is submitted to a controller, below the session's window of 4096."""


class ControllerSide:
    """A hypervisor's queue pairs and the sessions that carry them.

    Args:
        config: What it serves.
        own: Settings of its sessions.
        outbox: Takes actions and deadlines.
        guests: Hear how their requests ended.

    Attributes:
        openers: Sessions by controller name.
        tracing: Whether to make a `TracePoint` for each command.
    """

    def __init__(self, config: HypervisorConfig, own: SessionConfig, outbox: Outbox, guests: GuestSide) -> None:
        self.openers = {name: Opener(own, name) for name in config.controllers}
        self.tracing = False
        self._pairs = config.controllers
        self._outbox = outbox
        self._guests = guests

    def start(self, now_ns: int) -> None:
        """Begin the sessions."""
        for name, opener in self.openers.items():
            self._outputs(name, opener.start(now_ns), now_ns)

    def received(self, event: ControllerFramesReceived, now_ns: int) -> None:
        """Take a message of a controller."""
        name = event.controller
        self._outputs(name, self.openers[name].receive(event.frames, now_ns), now_ns)

    def tick(self, now_ns: int) -> None:
        """Let sessions go on that wait for this time."""
        for name, opener in self.openers.items():
            self._outputs(name, opener.tick(now_ns), now_ns)

    def close(self, reason: str, now_ns: int) -> None:
        """Say goodbye."""
        for name, opener in self.openers.items():
            self._outputs(name, opener.close(reason, now_ns), now_ns)

    def note_deadlines(self) -> None:
        """Any message may have brought a session's deadline forward."""
        for opener in self.openers.values():
            self._outbox.lower_deadline(opener.deadline_ns())

    def submit(self, now_ns: int) -> list[Action]:
        """Gather what virtual devices asked for during this step, one batch per controller."""
        submits: list[Action] = []
        for name, queue_pair in self._pairs.items():
            if not queue_pair.pending:
                continue
            opener = self.openers[name]
            while opener.open and opener.stream.unacknowledged() < SUBMITS_UNACKNOWLEDGED:
                batch = queue_pair.take_batch(now_ns)
                if batch is None:
                    break
                if self.tracing:  # first, so that the controller's points are later ones
                    submits += submit_points(name, batch[0], self._guests.owners())
                submits.append(SendToController(name, opener.send(*batch, now_ns).frames))
            ready_ns = queue_pair.ready_ns()
            if ready_ns is not None and ready_ns > now_ns:  # else it waits for credit, which comes with a message
                self._outbox.lower_deadline(ready_ns)
            if queue_pair.refused:
                queue_pair.settle(now_ns)
                self._tell(queue_pair, now_ns)
        return submits

    def _outputs(self, name: str, outputs: Sequence[SessionOutput], now_ns: int) -> None:
        queue_pair, outbox = self._pairs[name], self._outbox
        for output in outputs:
            if isinstance(output, Delivered):
                self._message(queue_pair, output, now_ns)
            elif isinstance(output, SendFrames):
                outbox.append(SendToController(name, output.frames))
            elif isinstance(output, Opened):
                queue_pair.opened(output.credits, output.resumed)
                outbox.note(f"controller {name} connected")
                self._guests.completed(now_ns)
            elif isinstance(output, Lost):
                queue_pair.lost()
                outbox.note(f"controller {name} lost: {output.reason}; {queue_pair.in_flight} requests wait for it")
                self._guests.completed(now_ns)
            elif isinstance(output, Rejected):
                outbox.note(f"controller {name}: message refused: {output.reason}")

    def _message(self, queue_pair: QueuePair, delivered: Delivered, now_ns: int) -> None:
        if isinstance(delivered.body, UnitsChanged):
            queue_pair.ask_all_again()
        if not isinstance(delivered.body, Complete):
            return
        try:
            queue_pair.complete(delivered.body, delivered.payload, now_ns)
        except DecodeError as error:
            self._outbox.note(f"controller {queue_pair.controller}: completions refused: {error}")
            return
        for line in queue_pair.notes:
            self._outbox.note(line)
        queue_pair.notes.clear()
        self._tell(queue_pair, now_ns)

    def _tell(self, queue_pair: QueuePair, now_ns: int) -> None:
        """Let those guests go on whose requests ended; all if a unit was identified: anyone may wait for that."""
        ended, queue_pair.ended = queue_pair.ended, set()
        self._guests.completed(now_ns, None if OWN in ended else ended)
