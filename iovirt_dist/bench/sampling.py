"""Samples of two sides that are compared: taken in turns, so that a machine that drifts slows both alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

Sample = Callable[[], float]
"""Does the thing once; returns what it cost, in the unit of the measurement."""


class Effort(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Turns of each side.
        samples: Samples in a turn.
        warm_up: Samples of each side before the first turn, thrown away.
    """

    rounds: int
    samples: int
    warm_up: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side cost, in the unit of the measurement.

    Attributes:
        p50: Median of all samples.
        p99: 99th percentile (nearest rank) of all samples.
        best: Lowest of the rounds' medians: the machine at its quietest.
    """

    p50: float
    p99: float
    best: float


def summarise(rounds: list[list[float]]) -> Figures:
    """Sum up samples, at least one round of at least one."""
    every = sorted(cost for taken in rounds for cost in taken)
    rank = -(-99 * len(every) // 100)
    return Figures(median(every), every[rank - 1], min(median(taken) for taken in rounds))


def in_turns(ours: Sample, base: Sample, effort: Effort) -> tuple[Figures, Figures]:
    """Take samples of both sides, round by round, and sum them up."""
    for sample in (ours, base):
        for _ in range(effort.warm_up):
            sample()
    taken: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(effort.rounds):
        for sample, rounds in zip((ours, base), taken, strict=True):
            rounds.append([sample() for _ in range(effort.samples)])
    return summarise(taken[0]), summarise(taken[1])
