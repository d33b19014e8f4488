"""Samples of two sides, taken in turns."""

from __future__ import annotations

from iovirt_dist.bench.sampling import Effort, Figures, in_turns, summarise


def test_figures_of_rounds_are_median_percentile_and_best_round() -> None:
    """Over all samples, but the best is a round's median."""
    assert summarise([[5.0, 1.0, 3.0], [9.0, 7.0, 8.0]]) == Figures(p50=6.0, p99=9.0, best=3.0)


def test_figures_of_one_sample_are_that_sample() -> None:
    """A boot is measured once a round."""
    assert summarise([[2.5]]) == Figures(2.5, 2.5, 2.5)


def test_sides_are_measured_in_turns_after_a_warm_up() -> None:
    """A machine that drifts slows both alike; what is cold at first counts for neither."""
    order: list[str] = []

    def side(name: str, cost: float) -> float:
        order.append(name)
        return cost

    ours, base = in_turns(lambda: side("o", 2.0), lambda: side("b", 1.0), Effort(rounds=2, samples=3, warm_up=1))

    assert "".join(order) == "o" + "b" + "ooobbb" * 2
    assert (ours.p50, base.p50) == (2.0, 1.0)
