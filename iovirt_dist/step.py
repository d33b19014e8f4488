"""The contract of every sans-IO core.

A core is an object with ``handle(event, now_ns) -> list[Action]``. It holds state and decides; it never looks at a
clock, touches a socket or file, draws a random number, logs, or awaits. Time and seeds are arguments. Events are
named in the past tense (what happened), actions in the imperative (what the runtime must do). The one loop that
receives, handles and performs is in `iovirt_dist.runtime`; tests drive the same cores with a virtual clock.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

E_contra = TypeVar("E_contra", contravariant=True)
A = TypeVar("A")


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of events and actions that occur with every message; others are NamedTuples.

    Built in C, in a third of the time, and not tracked by the collector: none may be part of a cycle.
    """


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
