"""What a guest sends while its machine cannot be built yet.

The guest's CPU runs already: it has one trap out at a time, which waits for its reply, and posted stores before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Message, Report, Trap, TrapKind
from iovirt_dist.wire.syscall_messages import ProgramStarted, SystemCall

MAX_STORES = 4096
"""Posted stores that wait; as many as a guest may have unacknowledged. Later ones are lost, and counted."""

Entry = tuple[Message, Sequence[Buffer]]


class Backlog:
    """Messages of one guest in order, bounded whatever the guest sends.

    The trap that waits for a reply always has a place: without its reply the guest would hang for ever.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._stores = 0
        self._waits = False

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, body: Message, payload: Sequence[Buffer]) -> bool:
        """Keep a message; False if it is lost: one store too many, a second one that waits, or none of these."""
        if isinstance(body, Report):
            self._add_report(body)
            return True
        if not isinstance(body, Trap | SystemCall | ProgramStarted):
            return False
        if isinstance(body, ProgramStarted):
            if any(isinstance(known, ProgramStarted) for known, _ in self._entries):
                return False
        elif isinstance(body, Trap) and body.kind is TrapKind.MMIO_STORE:
            if payload or self._stores >= MAX_STORES:
                return False
            self._stores += 1
        elif self._waits:
            return False
        else:
            self._waits = True
        self._entries.append((body, payload))
        return True

    def take(self) -> list[Entry]:
        """Return everything in order, and forget it."""
        entries, self._entries, self._stores, self._waits = self._entries, [], 0, False
        return entries

    def _add_report(self, report: Report) -> None:
        """A report follows the traps that it counts; of several in a row the last one says it all."""
        if self._entries and isinstance(self._entries[-1][0], Report):
            self._entries.pop()
        self._entries.append((report, ()))
