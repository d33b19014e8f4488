"""Keeps overlapping accesses in their order of arrival while all others may run at the same time.

Two accesses conflict when their ranges overlap and at least one of them changes data. An access runs when it
conflicts with nothing that runs and nothing that arrived earlier and still waits.

Plain scans: at most `core.MAX_ACTIVE` accesses are here at once, reads look at writers only, and an interval tree
costs more in Python than these comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.wire.commands import Opcode


class AccessOrder:
    """The accesses that run and those that wait for them."""

    def __init__(self) -> None:
        self._reading: dict[int, Operation] = {}
        self._changing: dict[int, Operation] = {}
        self._waiting: list[Operation] = []

    def enter(self, operation: Operation) -> bool:
        """Add an access; its token is unique until it leaves, and its length is not 0.

        Returns:
            Whether it may run now; if not, a later `leave` returns it.
        """
        if operation.opcode is Opcode.READ and not self._changing and not self._waiting:
            self._reading[operation.token] = operation
            return True
        if self._conflicts(operation, self._waiting):
            self._waiting.append(operation)
            return False
        self._run(operation)
        return True

    def leave(self, token: int) -> Sequence[Operation]:
        """Remove an access that has run; return those that may run now, in order of arrival."""
        if self._reading.pop(token, None) is None:
            self._changing.pop(token, None)
        if not self._waiting:
            return ()
        runnable: list[Operation] = []
        waiting: list[Operation] = []
        for operation in self._waiting:
            if self._conflicts(operation, waiting):
                waiting.append(operation)
            else:
                self._run(operation)
                runnable.append(operation)
        self._waiting = waiting
        return runnable

    def _run(self, operation: Operation) -> None:
        (self._reading if operation.opcode is Opcode.READ else self._changing)[operation.token] = operation

    def _conflicts(self, operation: Operation, waiting: list[Operation]) -> bool:
        """Whether an access must wait for one that runs, or for one of those that waited before it."""
        if self._changing and _overlaps(operation, self._changing.values()):
            return True
        if operation.opcode is Opcode.READ:
            return _overlaps(operation, (other for other in waiting if other.opcode is not Opcode.READ))
        return _overlaps(operation, self._reading.values()) or _overlaps(operation, waiting)


def _overlaps(operation: Operation, others: Iterable[Operation]) -> bool:
    """Whether any of the others shares a byte with the operation."""
    start, end = operation.offset, operation.offset + operation.length
    for other in others:  # noqa: SIM110 - a generator costs three times as much per operation
        if other.offset < end and start < other.offset + other.length:
            return True
    return False
