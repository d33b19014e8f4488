"""Keeps overlapping accesses in their order of arrival while all others may run at the same time.

Two accesses conflict when their ranges overlap and at least one of them changes data. An access runs when it
conflicts with nothing that runs and nothing that arrived earlier and still waits.

Plain scans: at most `core.MAX_ACTIVE` accesses are here at once, reads look at writers only, and an interval tree
costs more in Python than these comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Range(NamedTuple):
    """Bytes ``start`` up to but excluding ``end`` of the image."""

    start: int
    end: int


class _Waiting(NamedTuple):
    """An access that must not run yet."""

    token: int
    range: Range
    changes: bool


class AccessOrder:
    """The accesses that run and those that wait for them."""

    def __init__(self) -> None:
        self._reading: dict[int, Range] = {}
        self._changing: dict[int, Range] = {}
        self._waiting: list[_Waiting] = []

    def enter(self, token: int, start: int, end: int, changes: bool) -> bool:
        """Add an access.

        Args:
            token: Names it until it leaves; unique.
            start: First byte.
            end: First byte behind it, above `start`.
            changes: Whether it writes or discards.

        Returns:
            Whether it may run now; if not, a later `leave` returns its token.
        """
        if self._conflicts(start, end, changes) or self._waits_before(start, end, changes, self._waiting):
            self._waiting.append(_Waiting(token, Range(start, end), changes))
            return False
        self._run(token, start, end, changes)
        return True

    def leave(self, token: int) -> list[int]:
        """Remove an access that has run; return the tokens that may run now, in order of arrival."""
        if self._reading.pop(token, None) is None:
            self._changing.pop(token, None)
        if not self._waiting:
            return []
        runnable: list[int] = []
        waiting: list[_Waiting] = []
        for access in self._waiting:
            start, end = access.range
            if self._conflicts(start, end, access.changes) or self._waits_before(start, end, access.changes, waiting):
                waiting.append(access)
            else:
                self._run(access.token, start, end, access.changes)
                runnable.append(access.token)
        self._waiting = waiting
        return runnable

    def _run(self, token: int, start: int, end: int, changes: bool) -> None:
        (self._changing if changes else self._reading)[token] = Range(start, end)

    def _conflicts(self, start: int, end: int, changes: bool) -> bool:
        if self._changing and _overlaps(start, end, self._changing.values()):
            return True
        return changes and _overlaps(start, end, self._reading.values())

    @staticmethod
    def _waits_before(start: int, end: int, changes: bool, waiting: list[_Waiting]) -> bool:
        return any(
            (changes or other.changes) and other.range.start < end and start < other.range.end for other in waiting
        )


def _overlaps(start: int, end: int, ranges: Iterable[Range]) -> bool:
    """Whether any of the ranges shares a byte with ``start..end``."""
    for other_start, other_end in ranges:  # noqa: SIM110 - a generator costs three times as much per range
        if other_start < end and start < other_end:
            return True
    return False
