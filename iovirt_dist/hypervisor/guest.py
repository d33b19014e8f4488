"""A guest as its hypervisor knows it: the session, and the machine behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from iovirt_dist.hypervisor.backlog import Backlog
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.wire.stream import Stream

COMPLETIONS_UNACKNOWLEDGED = 512
"""Unacknowledged messages at which completions of queues wait: more than requests fit into a disk's ring."""

COMPLETIONS_UNACKNOWLEDGED_BYTES = 64 << 20
"""The same for bytes of payload."""


@dataclass(slots=True)
class Guest:
    """A guest with a session: where it is and what waits for its machine.

    Attributes:
        vm: Its machine, drivers and counts.
        peer: Its address.
        connected: Whether its session is open.
        epoch: Its life.
        waiting: Why it has no machine yet, one line.
        off: Its hardware switched it off: it has no machine for the rest of its life.
        reset_by: Sequence number of the message that resets it, until it has acknowledged that; else 0.
        crowded: It has much to acknowledge, so completions wait.
        deaf: It acknowledges nothing, so what it should get is dropped.
        backlog: What waits for its machine.
        ask_ns: When units that their controllers do not have are asked for again, 0 for never.
    """

    vm: VirtualMachine
    peer: bytes = b""
    connected: bool = False
    epoch: int = 0
    waiting: str = ""
    off: bool = False
    reset_by: int = 0
    crowded: bool = False
    deaf: bool = False
    backlog: Backlog = field(default_factory=Backlog)
    ask_ns: int = 0

    def is_old(self, acknowledged: int) -> bool:
        """Whether a message left before the guest knew of its reset, by what it acknowledges: the machine ignores it.

        What the guest has acknowledged since says nothing of a message that had to be sent again.
        """
        if acknowledged < self.reset_by:
            return True
        self.reset_by = 0
        return False

    def look_for_room(self, stream: Stream | None) -> None:
        """Note whether the guest has so much to acknowledge that completions must wait."""
        self.crowded = stream is not None and (
            stream.unacknowledged() >= COMPLETIONS_UNACKNOWLEDGED
            or stream.unacknowledged_bytes() >= COMPLETIONS_UNACKNOWLEDGED_BYTES
        )
        self.vm.hold_completions(self.crowded)
