"""``iovirt compare``: one job at the operation, driver and system-call level, and what each costs and knows.

Every number is that of the job alone. The guest boots, and then rests until the job is let go: what was counted until
then is subtracted. So is what the same guest counts in a run of its own, from there on, for a job of no bytes, which
opens and closes the disk and prints as many lines. The guest's clock ticks twenty times a second while anything runs,
so a job that takes longer has more interrupts; these are its own.

What the hypervisor knows of a request is measured in a third run with tracing on, of a few requests by two processes:
so tracing costs the measured run nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iovirt_dist.cli.compare_plot import check_plot, draw_plot
from iovirt_dist.cli.compare_run import Run, together
from iovirt_dist.cli.compare_table import print_comparison
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail, note, print_json
from iovirt_dist.cli.progress import Say, progress
from iovirt_dist.cli.terminal import exit_on_signals
from iovirt_dist.compare.counts import Counts
from iovirt_dist.compare.job import MAX_BLOCK_BYTES, MAX_KIB, MIN_BLOCK_BYTES, Job, disk_content, sha256_of
from iovirt_dist.compare.knowledge import Known, knowledge_of
from iovirt_dist.compare.result import Drivers, RowResult, comparison_json
from iovirt_dist.compare.rows import DISK, GUEST, HYPERVISOR, ROWS, Row
from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.linux.cost import abi_cost
from iovirt_dist.topology.units import parse_size


@dataclass(slots=True)
class _Measured:
    """What is gathered of one row."""

    row: Row
    idle: Counts = field(default_factory=Counts)
    job: Counts = field(default_factory=Counts)
    total: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    sha256: str = ""
    knows: dict[str, Known] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    drivers: Drivers | None = None
    problems: list[str] = field(default_factory=list)


def run_compare(job: Job, rows: Sequence[Row], *, as_json: bool, plot: Path | None = None) -> int:
    """Run the comparison in a temporary folder, of which nothing stays.

    Args:
        job: What each row does.
        rows: Which of `ROWS`.
        as_json: Print one object instead of tables.
        plot: File to draw into.

    Returns:
        Exit status 0 only if each row's checksum is the host's.

    Raises:
        ConfigError: The plot cannot be drawn.
        LocalError: Processes cannot be started, or do not do what they should.
    """
    if plot is not None:
        check_plot(plot)
    with exit_on_signals(), progress(2 + len(rows)) as say:
        results = compare(job, rows, say)
    expected = sha256_of(disk_content(job))
    if as_json:
        print_json(comparison_json(results, job, expected))
    else:
        print_comparison(results, job)
    if plot is not None:
        draw_plot(plot, results, job)
        note(f"drawn: {plot}")
    return report_problems(results)


def report_problems(results: dict[str, RowResult]) -> int:
    """Print a line for each problem; return the exit status."""
    problems = [(name, problem) for name, result in results.items() for problem in result.problems]
    for name, problem in problems:
        fail(f"compare: {name}: {problem}")
    return EXIT_FAILED if problems else EXIT_DONE


def compare(job: Job, rows: Sequence[Row], say: Say) -> dict[str, RowResult]:
    """Run the job at each level.

    Returns:
        Results by row.

    Raises:
        LocalError: Processes cannot be started, or do not do what they should.
    """
    base = Path(tempfile.mkdtemp(prefix="iovirt-cmp-"))
    measured = {row.name: _Measured(row) for row in rows}
    try:
        _count_idle(job, measured, base, say)
        _trace(job, measured, base, say)
        _measure(job, measured, base, say)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return {name: _result(item) for name, item in measured.items()}


def _count_idle(job: Job, measured: dict[str, _Measured], base: Path, say: Say) -> None:
    """What each guest counts whose job has no bytes."""
    idle = replace(job, kib=0)
    say(f"counting what {len(measured)} guests do without a job")

    runs = [Run(item.row, idle, base / f"i{n}") for n, item in enumerate(measured.values())]
    with together(runs):
        for run in runs:  # one after another, as the clock's ticks count, too
            run.release()
            run.finish()
        for run in runs:
            measured[run.row.name].idle = run.settled() - run.before


def _trace(job: Job, measured: dict[str, _Measured], base: Path, say: Say) -> None:
    """What the hypervisor knows of each request."""
    say("tracing a few requests of each")
    jobs = {name: item.row.knowledge_job(job) for name, item in measured.items()}
    runs = [Run(item.row, jobs[name], base / f"t{n}", traced=True) for n, (name, item) in enumerate(measured.items())]
    disks: dict[str, Any] = {}

    with together(runs):
        for run in runs:
            run.release()
        for run in runs:
            run.finish()
            run.settled()
            disks[run.row.name] = _disk_status(run)["traced_as"]
    for run in runs:
        name, row = run.row.name, run.row
        points = list(run.points(HYPERVISOR))
        item = measured[name]
        item.knows = knowledge_of(row.level, points, list(run.job.requests()), disks[name], DISK)
        if run.sha256() != sha256_of(disk_content(run.job)):
            item.problems.append("the checksum of the traced run is not the host's")


def _measure(job: Job, measured: dict[str, _Measured], base: Path, say: Say) -> None:
    """The job itself, one row after another."""
    content = disk_content(job)
    expected = sha256_of(content)

    runs = [Run(item.row, job, base / f"m{n}") for n, item in enumerate(measured.values())]
    with together(runs):
        for run in runs:
            item = measured[run.row.name]
            say(f"{run.row.name}: {job.kib} KiB in requests of {job.block_bytes} bytes")
            run.release()
            times = run.finish()
            item.seconds = times.hashed - times.begun
        for run in runs:
            item = measured[run.row.name]
            item.total = run.settled()
            item.job = item.total - run.before
            item.sha256 = run.sha256()
            item.drivers, item.calls = _drivers(run), _calls(run)
            if item.sha256 != expected:
                item.problems.append(f"the guest's sha256 is {item.sha256 or 'missing'}, the host's {expected}")
            if run.image() != content:
                item.problems.append("the disk's image is not what it was")


def _guest_status(run: Run) -> dict[str, Any]:
    status: dict[str, Any] = run.final[HYPERVISOR]["guests"][GUEST]
    return status


def _disk_status(run: Run) -> dict[str, Any]:
    disk: dict[str, Any] = _guest_status(run)["disk"]
    return disk


def _calls(run: Run) -> dict[str, int]:
    """System calls that were carried out: made, and not left to the guest's kernel."""
    status = _guest_status(run)["system_calls"]
    passed = status.get("passed", {})
    left = {name: count - passed.get(name, 0) for name, count in status.get("calls", {}).items()}
    return {name: count for name, count in sorted(left.items()) if count}


def _drivers(run: Run) -> Drivers:
    disk = _disk_status(run)
    abi = _guest_status(run)["system_calls"].get("abi", "")
    routines, lines = abi_cost(abi) if abi else (0, 0)
    return Drivers(
        guest=run.guest_driver(),
        virtual_device=disk["virtual_device"],
        host=disk["host_driver"],
        controller=disk["controller"],
        abi=abi,
        abi_routines=routines,
        abi_lines=lines,
    )


def _result(item: _Measured) -> RowResult:
    assert item.drivers is not None, "every row was measured"
    return RowResult(
        counts=item.job - item.idle,
        total=item.total,
        seconds=item.seconds,
        sha256=item.sha256,
        calls=item.calls,
        knows=item.knows,
        drivers=item.drivers,
        problems=tuple(item.problems),
    )


def job_of(kib: int, block_size: str, write_percent: int) -> Job:
    """Check the options of a job.

    Raises:
        ConfigError: One is out of range.
    """
    try:
        block = parse_size(block_size)
    except ValueError as error:
        raise ConfigError(f"{error}, got '{block_size}'", "iovirt compare: --block-size") from None
    if not 1 <= kib <= MAX_KIB:
        raise ConfigError(f"expected 1 to {MAX_KIB} KiB, got {kib}", "iovirt compare: --size")
    if not MIN_BLOCK_BYTES <= block <= MAX_BLOCK_BYTES or block % MIN_BLOCK_BYTES:
        raise ConfigError(f"expected 512B to 1MiB in whole sectors, got {block_size}", "iovirt compare: --block-size")
    if not 0 <= write_percent <= 100:
        raise ConfigError(f"expected 0 to 100, got {write_percent}", "iovirt compare: --write")
    return Job(kib, block, write_percent)


def rows_of(name: str | None) -> tuple[Row, ...]:
    """The row of that name, or all."""
    return tuple(row for row in ROWS if name in (None, row.name))
