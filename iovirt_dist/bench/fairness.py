"""Guests that are not alike: shares by weight, and what a guest that floods costs an honest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from iovirt_dist.bench.fleet import Fleet, Member
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Figures, summarise
from iovirt_dist.bench.sharing import BACKLOGGED, DEPTH

WEIGHTS: Final = {"light": 1, "middle": 2, "heavy": 4}
FLOOD_DEPTH: Final = 1024
"""As much as a load may ask for; the disk's ring holds 85 requests, and the flood keeps it full."""
NEIGHBOURS: Final = 3
"""Guests beside the honest one; in the second half one of them floods."""
WEIGHT_ERROR_PERCENT: Final = 5.0
LEAST_SHARE: Final = 0.70
MOST_LATENCY: Final = 3.0

_RESULT_WITHIN_S: Final = 60.0


class Span(NamedTuple):
    """How much is measured.

    Attributes:
        windows: For shares by weight.
        window_s: Length of a window.
        seconds: How long the honest guest is measured beside each kind of neighbours, in each round.
        rounds: Of that.
    """

    windows: int = 6
    window_s: float = 1.0
    seconds: float = 4.0
    rounds: int = 2


def measure_weights(span: Span, tell: Callable[[str], None]) -> list[Result]:
    """Let three guests with weights write to one disk.

    Writes are made stable one batch after another, so that the controller is what everybody waits for; where guests
    wait for a CPU, shares of the disk mean nothing.

    Raises:
        LocalError: A process does not do what it should.
    """
    tell("fairness: three guests with weights 1, 2 and 4")
    load: dict[str, float | str] = {"request": "write", "depth": FLOOD_DEPTH}
    members = {name: Member(load, {"weight": weight}) for name, weight in WEIGHTS.items()}
    with Fleet(members, span.window_s) as fleet:
        fleet.start(*members)
        done = {name: sum(counts) for name, counts in fleet.windows(list(members), span.windows).items()}
    error = weight_error_percent(done, WEIGHTS)
    target = Target(WEIGHT_ERROR_PERCENT)
    details = {"weights": WEIGHTS, "requests": done}
    return [Result("weights", "worst error of shares 1:2:4", "%", target, _figures([error]), details=details)]


def weight_error_percent(done: Mapping[str, int], weights: Mapping[str, int]) -> float:
    """How far the guest that is furthest off is from its share by weight, in per cent of that share."""
    all_done, all_weights = sum(done.values()), sum(weights.values())
    wanted = {name: all_done * weight / all_weights for name, weight in weights.items()}
    return max(100.0 * abs(done[name] - share) / max(share, 1.0) for name, share in wanted.items())


def measure_flood(span: Span, tell: Callable[[str], None]) -> list[Result]:
    """Measure an honest guest beside well-behaved neighbours, and beside as many of which one floods, in turns.

    Raises:
        LocalError: A process does not do what it should.
    """
    others = [f"other{number}" for number in range(1, NEIGHBOURS)]
    honest = {
        "honest": [f"honest{n}" for n in range(span.rounds)],
        "flooded": [f"flooded{n}" for n in range(span.rounds)],
    }
    measured = Member({"depth": DEPTH, "seconds": span.seconds, "warm_up_seconds": span.seconds / 4})
    members = dict.fromkeys(["neighbour", *others], BACKLOGGED) | {"flood": Member({"depth": FLOOD_DEPTH})}
    members |= dict.fromkeys([name for names in honest.values() for name in names], measured)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in honest}
    with Fleet(members, span.window_s) as fleet:
        fleet.start(*others)
        for number in range(span.rounds):
            for kind, neighbour in (("honest", "neighbour"), ("flooded", "flood")):
                tell(f"fairness: an honest guest beside {NEIGHBOURS} others, {neighbour}, round {number + 1}")
                fleet.start(neighbour)
                fleet.start(honest[kind][number])
                found[kind].append(fleet.results(honest[kind][number], _RESULT_WITHIN_S))
                fleet.stop(neighbour, honest[kind][number])
    return _flood_results(found["flooded"], found["honest"])


def _flood_results(flooded: list[dict[str, Any]], honest: list[dict[str, Any]]) -> list[Result]:
    def rates(results: list[dict[str, Any]]) -> Figures:
        return _figures([result["iops"] for result in results])

    def latencies(results: list[dict[str, Any]]) -> Figures:
        return _figures([result["latency_us"]["p99"] / 1000 for result in results])

    base = "well-behaved"
    share, latency = Target(LEAST_SHARE, at_most=False), Target(MOST_LATENCY)
    return [
        Result("flood_share", "honest guest beside a flood", "IOPS", share, rates(flooded), rates(honest), base),
        Result("flood_latency", "its p99 latency", "ms", latency, latencies(flooded), latencies(honest), base),
    ]


def _figures(values: list[float]) -> Figures:
    return summarise([[value] for value in values])
