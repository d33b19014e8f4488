"""Keeps overlapping accesses in their order of arrival while all others may run at the same time.

Two accesses conflict when their ranges overlap and at least one of them changes data. An access runs when it
conflicts with nothing that runs and nothing that arrived earlier and still waits.

Plain scans: at most `core.MAX_ACTIVE` accesses are here at once, reads look at writers only, and an interval tree
costs more in Python than these comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.wire.commands import Opcode

_READ: Final = Opcode.READ


class AccessOrder:
    """The accesses that run and those that wait for them."""

    def __init__(self) -> None:
        self._reading: dict[int, Operation] = {}
        self._changing: dict[int, Operation] = {}
        self._waiting: list[Operation] = []

    def enter(self, operations: Iterable[Operation]) -> list[Operation]:
        """Add accesses in their order of arrival; their tokens are unique until they leave, their lengths not 0.

        Returns:
            Those that may run now; the others come from a later `leave`.
        """
        reading, changing, waiting = self._reading, self._changing, self._waiting
        runnable: list[Operation] = []
        for operation in operations:
            if operation.opcode is _READ and not changing and not waiting:
                reading[operation.token] = operation
            elif self._conflicts(operation, waiting):
                waiting.append(operation)
                continue
            else:
                self._run(operation)
            runnable.append(operation)
        return runnable

    def leave(self, tokens: Iterable[int]) -> list[Operation]:
        """Remove accesses that have run; return those that may run now, in order of arrival."""
        reading = self._reading
        for token in tokens:
            if reading.pop(token, None) is None:
                self._changing.pop(token, None)
        entering, self._waiting = self._waiting, []
        return self.enter(entering)

    def _run(self, operation: Operation) -> None:
        (self._reading if operation.opcode is _READ else self._changing)[operation.token] = operation

    def _conflicts(self, operation: Operation, waiting: list[Operation]) -> bool:
        """Whether an access must wait for one that runs, or for one of those that waited before it."""
        if self._changing and _overlaps(operation, self._changing.values()):
            return True
        if operation.opcode is _READ:
            return _overlaps(operation, (other for other in waiting if other.opcode is not _READ))
        return _overlaps(operation, self._reading.values()) or _overlaps(operation, waiting)


def _overlaps(operation: Operation, others: Iterable[Operation]) -> bool:
    """Whether any of the others shares a byte with the operation."""
    start, end = operation.offset, operation.offset + operation.length
    for other in others:  # noqa: SIM110 - a generator costs three times as much per operation
        if other.offset < end and start < other.offset + other.length:
            return True
    return False
