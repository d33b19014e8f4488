"""Guests that share a disk: what the benchmark makes of their counts, and each part once on real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iovirt_dist.bench import fairness, nbd, rates, run, sharing
from iovirt_dist.bench.fleet import Member, fleet_topology
from iovirt_dist.bench.report import Result
from iovirt_dist.errors import LocalError
from iovirt_dist.topology import load_topology
from iovirt_dist.topology.specs import ScriptSpec

WINDOW_S = 0.1


def by_key(results: list[Result]) -> dict[str, Result]:
    """Results by their names in the object."""
    return {result.key: result for result in results}


# --- what is made of counts


@pytest.mark.parametrize(("shares", "index"), [([5, 5, 5], 1.0), ([9, 0, 0], 1 / 3), ([0, 0], 1.0), ([1, 3], 0.8)])
def test_jain_index_is_one_for_equal_shares_and_falls_to_one_nth(shares: list[float], index: float) -> None:
    """With nothing at all, nobody has less than others."""
    assert sharing.jain_index(shares) == pytest.approx(index)


def test_weight_error_is_that_of_the_guest_furthest_off() -> None:
    """In per cent of its own share."""
    weights = {"a": 1, "b": 3}

    assert fairness.weight_error_percent({"a": 100, "b": 300}, weights) == 0
    assert fairness.weight_error_percent({"a": 110, "b": 290}, weights) == pytest.approx(10)
    assert fairness.weight_error_percent({"a": 0, "b": 0}, weights) == 0


def test_worst_error_is_that_of_the_window_furthest_off() -> None:
    """Above or below."""
    assert rates.worst_error_percent([990, 1050, 1000], 1000) == pytest.approx(5)
    assert rates.worst_error_percent([940, 1050], 1000) == pytest.approx(6)


def growth(rate_of: dict[int, float]) -> sharing.Growth:
    """A fleet of some sizes with a rate for each: guests of 30 MiB, a hypervisor that takes 1/2 MiB for each."""
    mib = 1 << 20
    return sharing.Growth(
        {number: [rate, rate] for number, rate in rate_of.items()},
        {number: [[10] * number, [10] * (number - 1) + [30]] for number in rate_of},
        {number: [sharing.Memory(30 * mib, 20 * mib)] * number for number in rate_of},
        {number: sharing.Memory(40 * mib + number * mib // 2, 0) for number in rate_of},
    )


def test_scale_compares_the_most_guests_with_the_best_number() -> None:
    """One guest alone is no sharing."""
    [result] = sharing.scale_results(growth({1: 900.0, 2: 100.0, 8: 80.0, 32: 95.0}))

    assert (result.ratio, result.met, result.base_name) == (0.95, True, "best: 2 guests")
    assert result.details["iops"] == {"1": 900, "2": 100, "8": 80, "32": 95}


def test_equal_shares_have_the_worse_index_of_both_ways() -> None:
    """From eight guests on."""
    results = by_key(sharing.equal_share_results(growth({2: 1.0, 8: 1.0, 32: 1.0})))

    assert list(results) == ["jain_8", "jain_32"]
    assert results["jain_8"].ours is not None
    assert results["jain_8"].ours.p50 == pytest.approx(sharing.jain_index([10] * 7 + [30]))
    assert results["jain_8"].met is False


def test_memory_is_of_guests_and_of_what_each_adds_to_the_hypervisor() -> None:
    """In MiB."""
    results = by_key(sharing.memory_results(growth({1: 1.0, 8: 1.0, 32: 1.0})))

    assert {key: result.met for key, result in results.items()} == dict.fromkeys(results, True)
    assert {key: result.ours.p50 for key, result in results.items() if result.ours} == {
        "guest_rss": 30.0,
        "guest_pss": 20.0,
        "hypervisor_per_guest": 0.5,
    }


def test_memory_of_a_process_is_read_from_the_kernel() -> None:
    """Of this one; one that is gone is one line."""
    memory = sharing.memory_of(os.getpid())

    assert memory.rss >= memory.pss > 1 << 20
    with pytest.raises(LocalError, match="cannot read its memory"):
        sharing.memory_of(1 << 30)


def test_fleet_topology_gives_each_guest_an_extent_and_what_it_may_have(tmp_path: Path) -> None:
    """Parameters of a member go before what all have."""
    members = {"a": Member({"depth": 8, "seconds": 2.0}), "b": Member(qos={"iops": 100, "bandwidth": "1MiB"})}

    file = tmp_path / "topology.toml"
    file.write_text(fleet_topology(members, 0.5), "utf-8")

    topology = load_topology(file)

    a, b = topology.guest("a"), topology.guest("b")
    assert isinstance(a, ScriptSpec)
    assert isinstance(b, ScriptSpec)
    assert (a.parameters["seconds"], b.parameters["window_seconds"]) == (2.0, 0.5)
    assert b.qos["disk"].iops == 100
    assert a.disk != b.disk


def test_fio_report_is_found_behind_its_notes_and_nothing_else_is_one() -> None:
    """Fio says what it thinks of its options first."""
    assert nbd.reported_iops('note: both\n{"jobs": [{"read": {"iops": 12.5}}]}', "read") == 12.5
    with pytest.raises(LocalError, match="not understood"):
        nbd.reported_iops('{"jobs": []}', "read")


def test_nbdkit_is_skipped_with_the_names_of_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without it runs the rest."""
    monkeypatch.setenv("PATH", str(tmp_path))

    results = nbd.measure_nbd(nbd.Span(), lambda _: None)

    assert [result.key for result in results] == ["random_read", "random_write", "stream_read"]
    assert {(result.met, result.skipped) for result in results} == {
        (None, "not installed: nbdkit nbdkit-plugin-python fio")
    }


def test_parts_are_chosen_by_name_and_measured_in_the_order_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need the fleet that grows share one."""
    grown: list[sharing.Steps] = []

    def grow(steps: sharing.Steps, _: run.Tell) -> sharing.Growth:
        grown.append(steps)
        return growth({1: 1.0, 2: 1.0})

    monkeypatch.setattr(run, "measure_growth", grow)

    report = run.run_parts(run.QUICK, ["memory", "scale"])

    assert list(report) == ["scale", "memory"]
    assert grown == [run.QUICK.sharing]


# --- real processes, the least of each


def test_fleet_grows_and_every_number_of_guests_is_measured() -> None:
    """Each guest has done something in the same windows, and has its memory."""
    told: list[str] = []

    found = sharing.measure_growth(sharing.Steps((1, 2), windows=1, window_s=WINDOW_S), told.append)

    assert {number: len(rates) for number, rates in found.rates.items()} == {1: 2, 2: 1}
    assert all(len(ways[0]) == number for number, ways in found.shares.items())
    assert {number: len(guests) for number, guests in found.guests.items()} == {1: 1, 2: 2}
    assert len(told) == 3


def test_weights_are_measured() -> None:
    """Three guests in the same windows."""
    [result] = fairness.measure_weights(fairness.Span(windows=2, window_s=WINDOW_S), lambda _: None)

    assert result.ours is not None
    assert all(result.details["requests"].values())


def test_flood_is_measured_beside_neighbours_that_behave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of both ratios."""
    monkeypatch.setattr(fairness, "NEIGHBOURS", 1)
    span = fairness.Span(window_s=WINDOW_S, seconds=0.2, rounds=1)

    results = by_key(fairness.measure_flood(span, lambda _: None))

    assert list(results) == ["flood_share", "flood_latency"]
    assert all(result.ratio for result in results.values())


def test_rates_are_measured_and_follow_a_change() -> None:
    """Three limits; how well they hold is not for a test."""
    results = by_key(rates.measure_rates(rates.Span(windows=2, window_s=WINDOW_S), lambda _: None))

    assert list(results) == ["iops", "set", "bandwidth"]
    assert all(len(result.details["windows"]) == 2 and result.ours for result in results.values())
