"""What the processes of one run counted, from their status files.

Each message is counted where it was sent: the bytes of a session in one direction are known to the end that sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iovirt_dist.compare.rows import DISK, GUEST, HYPERVISOR

Statuses = Mapping[str, Mapping[str, Any]]
"""Status contents by process name."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over one run, or the difference of two.

    Attributes:
        traps: Of the guest, by kind.
        guest_messages: Numbered messages between guest and hypervisor, both directions.
        guest_bytes: Their bytes, all frames.
        disk_messages: Numbered messages between hypervisor and disk controller, both directions.
        disk_bytes: Their bytes.
        interrupts: Interrupts that the guest's CPU took.
        disk_interrupts: Interrupts of the disk controller.
        commands: Commands that the disk controller completed.
    """

    traps: Mapping[str, int] = field(default_factory=dict)
    guest_messages: int = 0
    guest_bytes: int = 0
    disk_messages: int = 0
    disk_bytes: int = 0
    interrupts: int = 0
    disk_interrupts: int = 0
    commands: int = 0

    @property
    def all_traps(self) -> int:
        """Traps of all kinds."""
        return sum(self.traps.values())

    @property
    def messages(self) -> int:
        """Messages on both ways."""
        return self.guest_messages + self.disk_messages

    @property
    def wire_bytes(self) -> int:
        """Bytes on both ways."""
        return self.guest_bytes + self.disk_bytes

    def __sub__(self, other: Counts) -> Counts:
        """Return what is left without `other`; nothing is less than 0, which a tick of the clock could make it."""
        return Counts(
            {kind: max(count - other.traps.get(kind, 0), 0) for kind, count in self.traps.items()},
            max(self.guest_messages - other.guest_messages, 0),
            max(self.guest_bytes - other.guest_bytes, 0),
            max(self.disk_messages - other.disk_messages, 0),
            max(self.disk_bytes - other.disk_bytes, 0),
            max(self.interrupts - other.interrupts, 0),
            max(self.disk_interrupts - other.disk_interrupts, 0),
            max(self.commands - other.commands, 0),
        )


def counts_of(statuses: Statuses) -> Counts | None:
    """Add up a run's counters.

    Args:
        statuses: Of guest, hypervisor and disk controller.

    Returns:
        None while something is missing or the ends of a session do not tell the same: something is on its way, or one
        of them wrote its file earlier than the other.
    """
    guest = statuses.get(GUEST, {})
    hypervisor = statuses.get(HYPERVISOR, {})
    theirs = hypervisor.get("guests", {}).get(GUEST, {})
    pair = hypervisor.get("controllers", {}).get(DISK, {})
    controller = statuses.get(DISK, {}).get("sessions", {}).get(HYPERVISOR, {})
    if not (guest and theirs and pair and controller):
        return None
    if theirs["state"] != "halted" or not guest["traps"] == theirs["traps"] == theirs["guest_traps"]:
        return None
    if pair["in_flight"] or not (_agree(guest, theirs) and _agree(pair, controller)):
        return None
    return Counts(
        traps=dict(theirs["traps"]),
        guest_messages=guest["messages_out"] + theirs["messages_out"],
        guest_bytes=guest["message_bytes_out"] + theirs["message_bytes_out"],
        disk_messages=pair["messages_out"] + controller["messages_out"],
        disk_bytes=pair["message_bytes_out"] + controller["message_bytes_out"],
        interrupts=theirs["interrupts_taken"],
        disk_interrupts=pair["interrupts"],
        commands=pair["completed"],
    )


def _agree(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return one["messages_out"] == other["messages_in"] and one["messages_in"] == other["messages_out"]
