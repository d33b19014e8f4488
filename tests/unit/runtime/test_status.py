"""Status files: rate, atomicity, and telling the living from the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import ProcessStatus, StatusWriter, read_status, read_status_file, start_ticks


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A fresh run directory."""
    made = RunDir(tmp_path / "run")
    made.create()
    return made


def test_update_round_trips_through_the_file(run_dir: RunDir) -> None:
    """What a process tells beyond the fixed fields arrives as content."""
    writer = StatusWriter(run_dir, "hv0", "hypervisor", epoch=7, started_ns=5)
    writer.update(9, state="running", guests={"alice": {"traps": 3}})
    status = read_status(run_dir)["hv0"]
    assert status == ProcessStatus(
        name="hv0",
        kind="hypervisor",
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        state="running",
        epoch=7,
        started_ns=5,
        updated_ns=9,
        content={"guests": {"alice": {"traps": 3}}},
    )
    assert status.alive


def test_update_writes_twice_a_second_unless_forced(run_dir: RunDir) -> None:
    """Counters change all the time, the file does not."""
    writer = StatusWriter(run_dir, "hv0", "hypervisor", epoch=1, started_ns=0)
    times_ns = (0, 499_999_999, 500_000_000, 700_000_000)
    assert [writer.update(now_ns) for now_ns in times_ns] == [True, False, True, False]
    assert writer.update(700_000_001, force=True, state="stopped")
    assert [path.name for path in run_dir.leftovers()] == ["hv0.json"]


def test_remove_leaves_nothing(run_dir: RunDir) -> None:
    """An orderly end takes the file along, even if there is none."""
    writer = StatusWriter(run_dir, "hv0", "hypervisor", epoch=1, started_ns=0)
    writer.update(0)
    writer.remove()
    writer.remove()
    assert run_dir.leftovers() == []


def unfinished(run_dir: RunDir) -> StatusWriter:
    """A writer that came no further than between writing and replacing."""
    writer = StatusWriter(run_dir, "hv0", "hypervisor", epoch=1, started_ns=0)
    run_dir.status("hv0").mkdir()
    with pytest.raises(IsADirectoryError):
        writer.update(0)
    run_dir.status("hv0").rmdir()
    assert len(run_dir.leftovers()) == 1
    return writer


def test_put_writes_over_what_a_killed_life_left_unfinished(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL may come in the middle of a write; the next life has another process number."""
    unfinished(run_dir)
    next_pid = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: next_pid)
    StatusWriter(run_dir, "hv0", "hypervisor", epoch=2, started_ns=0).update(0)
    assert [path.name for path in run_dir.leftovers()] == ["hv0.json"]


def test_remove_takes_an_unfinished_file_along(run_dir: RunDir) -> None:
    """A write that failed, for want of room, is no reason to leave anything behind."""
    writer = unfinished(run_dir)
    writer.remove()
    assert run_dir.leftovers() == []


def test_alive_needs_number_and_start_time() -> None:
    """Process numbers are used again."""
    assert not ProcessStatus(name="a", pid=os.getpid(), start_ticks=1).alive
    assert not ProcessStatus(name="a").alive


def test_alive_zombie_is_dead() -> None:
    """A process that nobody reaped yet does nothing any more."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(process.pid) is None
    process.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 3}', '{"name": "a", "pid": "x"}', "\ufffd\x00"])
def test_read_status_file_garbage_is_none(run_dir: RunDir, text: str) -> None:
    """A torn or foreign file is no status."""
    run_dir.status("a").write_text(text)
    assert read_status_file(run_dir.status("a")) is None
    assert read_status(run_dir) == {}
