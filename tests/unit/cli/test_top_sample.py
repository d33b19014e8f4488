"""Rates from what processes said last and before, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iovirt_dist.cli.top_sample import MAX_COUNT, STALE_NS, Sampler, count, find, table
from iovirt_dist.runtime.status import ProcessStatus

SECOND = 1_000_000_000


def said(at_s: float, epoch: int = 1, name: str = "hv0", **content: Any) -> ProcessStatus:
    """What a process says at a time of its own clock."""
    return ProcessStatus(name=name, epoch=epoch, started_ns=0, updated_ns=int(at_s * SECOND), content=content)


def sampler(*statuses: ProcessStatus) -> Sampler:
    """A sampler that has taken statuses of one process, a second of our time apart."""
    made = Sampler()
    for at, status in enumerate(statuses):
        made.take({status.name: status}, at * SECOND)
    return made


def test_rate_is_difference_over_the_processs_own_time() -> None:
    """Half a second passed there, whatever passed here."""
    assert sampler(said(10, n=100), said(10.5, n=150)).rate("hv0", "n") == 100.0


def test_rate_of_a_table_is_that_of_its_sum() -> None:
    """Traps are counted by kind."""
    found = sampler(said(0, traps={"in": 1, "out": 1}), said(1, traps={"in": 4, "out": 2}))
    assert found.rate("hv0", "traps") == 4.0


def test_rate_after_one_status_is_unknown() -> None:
    """A count alone tells nothing of now."""
    found = sampler(said(0, n=100))
    assert (found.rate("hv0", "n"), found.settled) == (None, False)


def test_rate_of_an_unknown_process_is_unknown() -> None:
    """It may come yet."""
    assert sampler(said(0, n=1)).rate("hv1", "n") is None


def test_rate_while_nothing_new_is_said_stays() -> None:
    """We may look more often than processes speak."""
    found = sampler(said(0, n=0), said(1, n=5), said(1, n=5))
    assert (found.rate("hv0", "n"), found.settled) == (5.0, True)


def test_rate_of_another_host_does_not_jump_with_its_clock() -> None:
    """Its times are shifted to ours at each look, never by exactly the same; what is said again is nothing new."""
    first, second = said(0, n=0), said(1, n=5)
    later = replace(second, started_ns=second.started_ns + 70_000, updated_ns=second.updated_ns + 70_000)
    assert sampler(first, second, later).rate("hv0", "n") == 5.0


def test_rate_of_a_process_that_hangs_becomes_unknown() -> None:
    """Its last rate is no rate of now."""
    found = sampler(said(0, n=0), said(1, n=5))
    found.take({"hv0": said(1, n=5)}, SECOND + STALE_NS)
    last = found.rate("hv0", "n")
    found.take({"hv0": said(1, n=5)}, SECOND + STALE_NS + 1)
    assert (last, found.rate("hv0", "n"), found.settled) == (5.0, None, True)


def test_rate_after_a_restart_counts_from_zero() -> None:
    """Another life, though its count is higher than the last one's."""
    assert sampler(said(0, epoch=1, n=100), said(2, epoch=2, n=300)).rate("hv0", "n") == 150.0


def test_rate_of_a_count_that_went_back_counts_from_zero() -> None:
    """A guest that was reset counts anew, its hypervisor's life goes on."""
    assert sampler(said(0, n=100), said(1, n=30)).rate("hv0", "n") == 30.0


def test_rate_of_a_count_that_is_new_counts_from_zero() -> None:
    """A guest that came between two samples."""
    assert sampler(said(0, guests={}), said(1, guests={"a": {"n": 7}})).rate("hv0", "guests", "a", "n") == 7.0


def test_process_that_goes_and_comes_back_begins_anew() -> None:
    """What it said before it went is forgotten."""
    found = sampler(said(0, n=1), said(1, n=2))
    found.take({}, 2 * SECOND)
    gone = found.rate("hv0", "n"), found.status("hv0")
    found.take({"hv0": said(3, n=900)}, 3 * SECOND)
    assert gone == (None, {})
    assert found.rate("hv0", "n") is None


@pytest.mark.parametrize("clocks", [(5.0, 5.0), (5.0, 4.0)])
def test_rate_over_a_clock_that_was_set_back_is_unknown(clocks: tuple[float, float]) -> None:
    """Wall clocks are set; nothing is divided by that."""
    first, second = clocks
    assert sampler(said(first, epoch=1, n=1), said(second, epoch=2, n=5)).rate("hv0", "n") is None


@pytest.mark.parametrize("value", ["7", True, -1, 1.5, MAX_COUNT, [1], {"a": "x"}, {"a": {"b": 1}}])
def test_what_is_no_count_has_no_rate(value: object) -> None:
    """Status files are not trusted."""
    before = sampler(said(0, n=value), said(1, n=5)).rate("hv0", "n")
    after = sampler(said(0, n=5), said(1, n=value)).rate("hv0", "n")
    assert (before, after) == (None, None)


@pytest.mark.parametrize("content", [None, 7, "x", [], {"a": 7}, {"a": []}])
def test_paths_through_what_is_no_table_lead_nowhere(content: object) -> None:
    """Whatever was written there."""
    assert (find(content, "a", "b"), dict(table(content, "a")), count(content, "a", "b")) == (None, {}, None)


def test_status_is_what_was_said_last() -> None:
    """For what is shown as it is."""
    assert sampler(said(0, n=1), said(1, n=2)).status("hv0") == {"n": 2}
