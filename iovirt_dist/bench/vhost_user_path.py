"""Where the time of a request goes on its way from a foreign kernel through our processes, from their trace points.

For requests that go one by one: between two kicks every process has its part exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

STOPS: Final = ("kick", "raise", "submit", "command", "completion", "completions", "call")
"""Events in the order of a request: gateway twice, hypervisor, controller twice, hypervisor, gateway."""

SEGMENTS: Final = (
    "gateway",
    "to_hypervisor",
    "to_controller",
    "controller",
    "back_to_hypervisor",
    "back_to_gateway",
)
"""What lies between two stops. A way to another process ends when that has done its work, as its points come last."""


class Division(NamedTuple):
    """Where the time went, in microseconds, of each request that was seen whole.

    Attributes:
        ours: From the kick to the call.
        guest: From the call to the next kick.
        segments: Medians.
    """

    ours: list[float]
    guest: list[float]
    segments: Mapping[str, float]


def read_points(paths: Iterable[Path]) -> list[tuple[int, str]]:
    """Time in ns and event of all trace points in files, in the order of time; what is half written is left out."""
    points = []
    for path in paths:
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        for line in lines:
            try:
                point: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            points.append((int(point["at_ns"]), str(point["event"])))
    return sorted(points, key=lambda point: point[0])


def divide(points: Iterable[tuple[int, str]]) -> Division:
    """Divide the time of requests; those that lack a stop, or have one twice, are left out."""
    times: list[list[int]] = []
    guest: list[float] = []
    before: list[int] | None = None
    for request in _requests(points):
        whole = [at for at, _ in request] if [event for _, event in request] == list(STOPS) else None
        if whole is not None:
            times.append(whole)
            if before is not None:
                guest.append((whole[0] - before[-1]) / 1000)
        before = whole
    ours = [(whole[-1] - whole[0]) / 1000 for whole in times]
    segments = {
        name: median((whole[at + 1] - whole[at]) / 1000 for whole in times) for at, name in enumerate(SEGMENTS) if times
    }
    return Division(ours, guest, segments)


def _requests(points: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Points from one kick to the next; events that no request has are left out."""
    request: list[tuple[int, str]] = []
    for at, event in points:
        if event == "kick":
            if request:
                yield request
            request = []
        if event in STOPS and (request or event == "kick"):
            request.append((at, event))
    if request:
        yield request
