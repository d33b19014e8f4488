"""The contract of every sans-IO core.

A core is an object with ``handle(event, now_ns) -> list[Action]``. It holds state and decides; it never looks at a
clock, touches a socket or file, draws a random number, logs, or awaits. Time and seeds are arguments. Events are
named in the past tense (what happened), actions in the imperative (what the runtime must do). The one loop that
receives, handles and performs is in `iovirt_dist.runtime`; tests drive the same cores with a virtual clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

E_contra = TypeVar("E_contra", contravariant=True)
A = TypeVar("A")


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of events and actions that occur with every message; others are NamedTuples.

    Built in C, in a third of the time, and not tracked by the collector: none may be part of a cycle.
    """


class TracePoint(Record, frozen=True):
    """An action that changes nothing: something that a person may want to see. Only made while a core is traced.

    Attributes:
        guest: Whose I/O it belongs to; empty where that is not known.
        number: The guest's trap or request number, its causal id; 0 where there is none.
        event: What happened, a short stable word such as ``trap``.
        fields: The rest by name, in types that JSON has.
    """

    guest: str
    number: int
    event: str
    fields: Mapping[str, int | str]


class Tracer:
    """Gathers the trace points of one guest, or of one core, until the core hands them out as actions.

    Args:
        guest: Whose they are.

    Attributes:
        on: Whether anybody looks; ask it before anything is computed for a point.
        number: Causal id of what is being done now.
        points: Since the last `take`.
    """

    __slots__ = ("guest", "number", "on", "points")

    def __init__(self, guest: str = "") -> None:
        self.guest = guest
        self.on = False
        self.number = 0
        self.points: list[TracePoint] = []

    def point(self, event: str, **fields: int | str) -> None:
        """Record that something happened."""
        self.points.append(TracePoint(self.guest, self.number, event, fields))

    def take(self) -> list[TracePoint]:
        """Return the points since the last call, in order."""
        points, self.points = self.points, []
        return points


class Core(Protocol[E_contra, A]):
    """A pure state machine driven by events."""

    def handle(self, event: E_contra, now_ns: int) -> list[A]:
        """Take one event at a time and return what must be done, in order.

        Args:
            event: What happened.
            now_ns: Monotonic time in nanoseconds; never goes backwards between calls.
        """
        ...

    def deadline_ns(self) -> int | None:
        """When `handle` must next be called with a timer event at the latest; None for never."""
        ...
