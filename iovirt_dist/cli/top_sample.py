"""From snapshots of counters to rates: no clock, no files.

Theory of operation. Every process counts, and says its counts with the time at which it took them (`ProcessStatus`). A
rate is the difference between what it said last and what it had said at the sample before, divided by the time between
the two: the process's own clock, so neither a late look nor the clocks of other hosts matter. A process that has not
said anything new keeps its rates, for `STALE_NS`; one that hangs has none after that. A counter that went back was set
to 0 in between, as was every counter of a process that lives another life; what it shows then was counted since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from iovirt_dist.runtime.status import ProcessStatus

STALE_NS: Final = 3_000_000_000
"""For how long a process that says nothing new keeps its rates; it writes twice a second."""

MAX_COUNT: Final = 1 << 63
"""What is not below this is no count: status files are not trusted."""


def find(content: object, *path: str) -> object:
    """Follow keys through nested tables; None where there is no such key, or no table."""
    for key in path:
        if not isinstance(content, dict):  # what JSON makes of a table; a Mapping would be looked at ten times longer
            return None
        content = content.get(key)
    return content


def table(content: object, *path: str) -> Mapping[str, Any]:
    """Return the table at the end of a path, an empty one if there is none."""
    found = find(content, *path)
    return found if isinstance(found, dict) else {}


def count(content: object, *path: str) -> int | None:
    """Return the count at the end of a path; a table of counts is their sum.

    Returns:
        None if there is nothing, or something that is no count.
    """
    found = find(content, *path)
    if not isinstance(found, dict):
        return found if _is_count(found) else None
    parts = list(found.values())
    return sum(parts) if all(map(_is_count, parts)) else None


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_COUNT


@dataclass(slots=True)
class _Process:
    """What one process said.

    Attributes:
        last: Last.
        before: Before that; None while it has said one thing only.
        heard_ns: When `last` was new to us, monotonic.
    """

    last: ProcessStatus
    before: ProcessStatus | None
    heard_ns: int

    @property
    def elapsed_s(self) -> float:
        """Time between the two; not above 0 if there are no two in order."""
        if self.before is None:
            return 0.0
        if self.before.epoch != self.last.epoch:
            return (self.last.updated_ns - self.before.updated_ns) / 1e9
        return (_age_ns(self.last) - _age_ns(self.before)) / 1e9


class Sampler:
    """Keeps the last two statuses of each process and gives rates."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._now_ns = 0

    def take(self, statuses: Mapping[str, ProcessStatus], now_ns: int) -> None:
        """Take what processes say now.

        Args:
            statuses: Of all processes that exist now; those that are missing are forgotten.
            now_ns: Monotonic time.
        """
        self._now_ns = now_ns
        known = self._processes
        self._processes = {name: _next(known.get(name), status, now_ns) for name, status in statuses.items()}

    @property
    def settled(self) -> bool:
        """Whether every process has rates, but for those that say nothing new any more."""
        fresh = [process for process in self._processes.values() if not self._stale(process)]
        return all(process.elapsed_s > 0 for process in fresh)

    def status(self, name: str) -> Mapping[str, Any]:
        """What a process said last, empty if it does not exist."""
        process = self._processes.get(name)
        return process.last.content if process is not None else {}

    def rate(self, name: str, *path: str) -> float | None:
        """Return how fast a count of a process grows, per second.

        Args:
            name: The process.
            path: Keys to the count, or to a table of counts.

        Returns:
            None if that is not known: no such count, one status only, or nothing new for too long.
        """
        process = self._processes.get(name)
        if process is None or process.before is None or process.elapsed_s <= 0 or self._stale(process):
            return None
        new = count(process.last.content, *path)
        if new is None:
            return None
        old = _base(process.before, process.last, path)
        return None if old is None else (new - old if new >= old else new) / process.elapsed_s

    def _stale(self, process: _Process) -> bool:
        return self._now_ns - process.heard_ns > STALE_NS


def _age_ns(status: ProcessStatus) -> int:
    """How long a process had lived when it said something: of another host's times only the differences are exact."""
    return status.updated_ns - status.started_ns


def _next(known: _Process | None, status: ProcessStatus, now_ns: int) -> _Process:
    """Take a status: what is said again is nothing new."""
    if known is None:
        return _Process(status, None, now_ns)
    if (_age_ns(status), status.epoch) == (_age_ns(known.last), known.last.epoch):
        return known
    return _Process(status, known.last, now_ns)


def _base(before: ProcessStatus, last: ProcessStatus, path: tuple[str, ...]) -> int | None:
    """What a count was before; 0 in another life or where there was none yet, None if it was no count."""
    if before.epoch != last.epoch or find(before.content, *path) is None:
        return 0
    return count(before.content, *path)
