"""Lives are numbered upwards, whatever the clock does."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.runtime.epoch import LAST_KEPT, next_epoch
from iovirt_dist.runtime.rundir import RunDir

NOW = 1_800_000_000_000_000_000


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """One that is not there yet."""
    return RunDir(tmp_path / "run")


def test_first_life_is_the_time(run_dir: RunDir) -> None:
    """So it is later than lives in other run directories."""
    assert next_epoch(run_dir, "hv", NOW) == NOW


def test_later_lives_are_greater_also_when_the_clock_is_set_back(run_dir: RunDir) -> None:
    """A process is never fenced by its own earlier life."""
    lives = [next_epoch(run_dir, "hv", now) for now in (NOW, NOW, NOW - 10, 5, NOW + 10)]
    assert lives == [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 10]


def test_processes_are_numbered_by_themselves(run_dir: RunDir) -> None:
    """Each name has a file of its own, which stays when the topology goes."""
    next_epoch(run_dir, "hv", NOW)
    assert next_epoch(run_dir, "disk0", NOW) == NOW
    run_dir.clean()
    assert next_epoch(run_dir, "disk0", NOW) == NOW + 1
    assert sorted(path.name for path in (run_dir.path / "epoch").iterdir()) == ["disk0", "hv"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"-5", b"1e9", b"9" * 400, str(LAST_KEPT + 1).encode(), "\u0665".encode()]
)
def test_damaged_file_is_no_reason_not_to_start(run_dir: RunDir, content: bytes) -> None:
    """The clock is used, and the file is whole again."""
    run_dir.create()
    run_dir.epoch("hv").write_bytes(content)
    assert next_epoch(run_dir, "hv", NOW) == NOW
    assert next_epoch(run_dir, "hv", NOW) == NOW + 1


def test_file_that_cannot_be_written_is_no_reason_not_to_start(run_dir: RunDir) -> None:
    """Something else is in its place."""
    run_dir.create()
    run_dir.epoch("hv").mkdir()
    assert next_epoch(run_dir, "hv", NOW) == NOW


def test_clock_that_went_wild_gives_a_number_that_is_allowed(run_dir: RunDir) -> None:
    """Epochs start at 1."""
    assert next_epoch(run_dir, "hv", 0) == 1
    assert next_epoch(run_dir, "hv", 0) == 2
