"""Trace points of a guest: what its CPU raised, and what came back."""

from __future__ import annotations

from collections.abc import Iterable

from iovirt_dist.guest.events import (
    Action,
    CompleteCall,
    CompleteTrap,
    Event,
    SetLines,
    SystemCallRaised,
    TrapRaised,
)
from iovirt_dist.step import TracePoint


def guest_points(guest: str, number: int, event: Event, actions: Iterable[Action]) -> list[TracePoint]:
    """Return the points of one step of a guest's core: ``raise``, ``complete`` and ``lines``.

    Args:
        guest: Whose core.
        number: What the core numbered last: at most one trap waits, so what completes has this number.
        event: What it was given.
        actions: What it gave.
    """
    points = []
    if isinstance(event, TrapRaised):
        fields: dict[str, int | str] = {"kind": event.kind.name.lower(), "address": event.address}
        fields |= {"width": event.width, "count": event.count, "value": event.value}
        points.append(TracePoint(guest, number, "raise", fields))
    elif isinstance(event, SystemCallRaised):
        fields = {"kind": "system_call", "caller": event.process, "call": event.call, "bytes": len(event.data)}
        points.append(TracePoint(guest, number, "raise", fields))
    for action in actions:
        if isinstance(action, CompleteTrap):
            fields = {"value": action.value, "bytes": len(action.data), "fault": action.fault}
            points.append(TracePoint(guest, number, "complete", fields))
        elif isinstance(action, CompleteCall):
            outcome = action.outcome
            fields = {"result": outcome.result, "bytes": len(outcome.data)}
            fields["disposition"] = outcome.disposition.name.lower()
            points.append(TracePoint(guest, number, "complete", fields))
        elif isinstance(action, SetLines):
            points.append(TracePoint(guest, 0, "lines", {"asserted": action.lines}))
    return points
