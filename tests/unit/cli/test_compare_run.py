"""What a run of a comparison left, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from iovirt_dist.cli.compare_run import Run
from iovirt_dist.compare.job import Job, disk_content
from iovirt_dist.compare.rows import ROWS
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import SUPERVISOR

Say = Callable[[str], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of the driver level that is not started."""
    prepared = Run(ROWS[2], Job(8, 4096), tmp_path / "r")
    prepared.run_dir.create()
    return prepared


@pytest.fixture
def say(run: Run) -> Say:
    """Print on the guest's terminal."""

    def write(text: str) -> None:
        run.run_dir.console_log("guest").write_bytes(text.replace("\n", "\r\n").encode())

    return write


def test_run_has_a_disk_of_its_own_with_the_jobs_content(run: Run) -> None:
    """Whole MiBs, of which the job reads the beginning."""
    assert (run.base / "disk.img").stat().st_size == 1 << 20
    assert run.image() == disk_content(Job(8))


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("vda: ATA disk, model IOVIRT DISK, 32768 sectors", "ATA"),
        ("vda: virtio disk, 32768 sectors", "virtio"),
        ("vda: no disk", "none"),
        ("init: all done", "unknown"),
    ],
)
def test_run_guest_driver_is_what_the_kernel_said(run: Run, say: Say, line: str, driver: str) -> None:
    """At boot; nothing is assumed of the level."""
    say(f"guestos: 32768 KiB memory\n{line}\n")

    assert run.guest_driver() == driver


def test_run_checksum_is_the_jobs_result_line(run: Run, say: Say) -> None:
    """The last one, if it ran twice; none before there is one."""
    before = run.sha256()
    say(f"job: result sha256={'a' * 64} bytes_read=1\njob: result sha256={'b' * 64} bytes_read=1\n")

    assert (before, run.sha256()) == ("", "b" * 64)


def test_run_trace_begins_with_what_was_put_aside(run: Run) -> None:
    """A file that grew too long goes on in another."""
    path = run.run_dir.trace_file("hv0")
    path.write_text(json.dumps({"event": "new"}) + "\n")
    path.with_name("hv0.jsonl.1").write_text(json.dumps({"event": "old"}) + "\n")

    assert [point["event"] for point in run.points("hv0")] == ["old", "new"]


def test_run_whose_process_failed_says_its_last_words(run: Run) -> None:
    """At once, not when the time is up."""
    rows = {"hv0": {"state": "backoff", "restarts": 1}}
    run.run_dir.status(SUPERVISOR).write_text(json.dumps({"name": SUPERVISOR, "processes": rows}))
    run.run_dir.log("hv0").write_text("hv0: iovirt: error: no room\n")

    with pytest.raises(LocalError, match="row driver: no room"):
        run.wait_ready()
