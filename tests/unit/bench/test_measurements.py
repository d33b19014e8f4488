"""Every benchmark once, with the least effort: does it measure what it says, on real processes?"""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.bench import guest_code, run, uboot
from iovirt_dist.bench.doorbells import measure_doorbells
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Effort, Figures
from iovirt_dist.bench.traps import measure_traps
from iovirt_dist.cli.main import main

LEAST = Effort(rounds=1, samples=3, warm_up=1)


def test_traps_are_measured_on_real_processes_beside_bare_ones() -> None:
    """Both sides cost something, and the guest's machine did what it was asked."""
    told: list[str] = []

    results = measure_traps(LEAST, told.append)

    assert [result.key for result in results] == ["hypervisor_trap", "controller_trap"]
    assert all(result.ours and result.base and result.ratio for result in results)
    assert len(told) == 3


def test_doorbells_are_measured_on_real_processes_beside_bare_ones() -> None:
    """Every load moved something, and no request had a message of its own."""
    told: list[str] = []

    results = {result.key: result for result in measure_doorbells(LEAST, told.append, seconds=0.1)}

    assert list(results) == [f"doorbell_{key}" for key in ("flush", "read", "stream", "answers", "messages")]
    assert all(result.ours and result.ours.p50 > 0 for result in results.values())
    assert all(results[f"doorbell_{key}"].ratio for key in ("flush", "read", "stream", "answers"))
    assert results["doorbell_messages"].met
    assert len(told) == 1


def test_guest_code_runs_to_its_end_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Million instructions a second of processor time."""
    title, code, _ = guest_code.LOOPS["count_loop"]
    short = code.replace(guest_code.ITERATIONS.to_bytes(4, "little"), (1_000_000).to_bytes(4, "little"))
    monkeypatch.setattr(guest_code, "LOOPS", {"count_loop": (title, short, 3_000_002)})

    [result] = guest_code.measure_guest_code(LEAST, lambda _: None)

    assert result.ours is not None
    assert result.base is not None
    assert min(result.ours.p50, result.base.p50) > 10


def test_u_boot_is_skipped_with_the_name_of_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the firmware runs the rest."""
    monkeypatch.setattr(uboot, "ROM", tmp_path / "absent.rom")

    results = uboot.measure_uboot(LEAST, lambda _: None)

    assert [result.met for result in results] == [None, None]
    assert all("u-boot-qemu" in result.skipped for result in results)


@pytest.mark.parametrize(
    ("limit", "arguments", "status"),
    [(1.0, [], 0), (1.0, ["--check"], 1), (3.0, ["--check"], 0), (1.0, ["--quick", "--json", "--check"], 1)],
)
def test_exit_status_tells_of_a_missed_target_only_if_asked(
    monkeypatch: pytest.MonkeyPatch, limit: float, arguments: list[str], status: int
) -> None:
    """A slow machine is no failure of the benchmark."""
    result = Result("key", "title", "s", Target(limit), Figures(2.0, 2.0, 2.0))
    monkeypatch.setattr(run, "run_parts", lambda plan, parts: {"traps": [result]})

    assert main(["bench", *arguments]) == status
