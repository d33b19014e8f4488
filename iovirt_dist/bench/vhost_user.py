"""Our vhost-user gateway beside qemu-storage-daemon's export, under unmodified Debian kernels.

A guest has both disks at once, which are one raw image in the page cache, and loads them in turns. Ours is three
processes in Python behind a socket, the other one process in C.

- QEMU, which translates the guest's code (TCG): fio, 4 KiB at random places, at depth 1 and depth 32.
- User-Mode Linux: dd past the page cache, one request at a time; told, not judged.
- Where the time of a read at depth 1 goes, by trace points, in a turn of its own: they cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from iovirt_dist.bench import vhost_user_jobs as jobs
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Figures, summarise
from iovirt_dist.bench.vhost_user_path import Division, divide, read_points
from iovirt_dist.bench.vhost_user_vms import BOOT_WITHIN_S, Machine, booted, missing_packages

Tell = Callable[[str], None]

BASE: Final = "qemu-storage-daemon"
TARGETS: Final = {1: Target(0.6, at_most=False), 32: Target(0.9, at_most=False)}
"""By depth."""
PATTERNS: Final = ("read", "write")
BLOCKS: Final = {4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}

_TRACE_SECONDS: Final = 3.0
_PROCESSES: Final = ("vm", "hv0", "disk0")
_PATH_KEY, _PATH_TITLE = "path_read_1", "read, depth 1 : guest"


class Span(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Turns of each side.
        seconds: Of each of fio's loads in a turn.
        megabytes: What each of dd's loads moves.
    """

    rounds: int = 4
    seconds: float = 2.5
    megabytes: int = 16


def measure_vhost_user(span: Span, tell: Tell) -> list[Result]:
    """Measure with both VMMs; what needs a package that is missing is skipped.

    Raises:
        LocalError: A process does not do what it should.
    """
    return [*measure_qemu(span, tell), *measure_uml(span, tell)]


# --- QEMU


def measure_qemu(span: Span, tell: Tell) -> list[Result]:
    """Boot once, run fio's loads, then one that is traced.

    Raises:
        LocalError: As above.
    """
    if missing := missing_packages("qemu"):
        return qemu_results({}, None, f"not installed: {' '.join(missing)}")
    loads = [
        jobs.FioJob(side, pattern, depth, number)
        for number, side in jobs.in_turns(span.rounds)
        for pattern in PATTERNS
        for depth in TARGETS
    ]
    traced = jobs.fio_text([jobs.FioJob("ours", "read", 1, 0)], _TRACE_SECONDS)
    files = {jobs.JOB_FILE: jobs.fio_text(loads, span.seconds), jobs.TRACED_FILE: traced}
    tell("vhost_user: QEMU boots, and fio loads both disks in turns")
    with booted("qemu", jobs.fio_script(), files) as machine:
        machine.wait_for(jobs.TRACED, BOOT_WITHIN_S + 2 * len(loads) * (span.seconds + 1))
        found = jobs.fio_iops(machine.output)
        tell("vhost_user: a read at depth 1, traced")
        division = _trace(machine)
    return qemu_results(found, division)


def _trace(machine: Machine) -> Division:
    """Trace our processes while the guest runs the load that is for that."""
    run_dir = machine.ring.run_dir
    run_dir.trace_switch.touch()
    machine.wait_for(jobs.UNTRACED, BOOT_WITHIN_S)
    machine.stop()
    return divide(read_points(run_dir.trace_file(name) for name in _PROCESSES))


def qemu_results(found: Mapping[jobs.FioJob, float], division: Division | None, skipped: str = "") -> list[Result]:
    """A row for each load, and one for the path.

    Args:
        found: Requests a second.
        division: Where the time went.
        skipped: Why nothing was measured.
    """
    results = []
    for pattern in PATTERNS:
        for depth, target in TARGETS.items():
            key, title = f"qemu_{pattern}_{depth}", f"QEMU, 4 KiB {pattern}s, depth {depth}"
            sides = {
                side: [iops for job, iops in found.items() if job[:3] == (side, pattern, depth)] for side in jobs.SIDES
            }
            results.append(_result(key, title, "IOPS", target, sides, skipped))
    return [*results, path_result(division, skipped)]


def path_result(division: Division | None, skipped: str = "") -> Result:
    """The row for the path: from kick to call, beside what QEMU and the guest's kernel take until the next kick."""
    if division is None or not division.guest:
        reason = skipped or "no request was traced from its beginning to its end"
        return Result(_PATH_KEY, _PATH_TITLE, "us", None, base_name="guest", skipped=reason)
    details: dict[str, Any] = {"requests": len(division.ours), "segments_us": dict(division.segments)}
    ours, guest = _figures(division.ours), _figures(division.guest)
    return Result(_PATH_KEY, _PATH_TITLE, "us", None, ours, guest, "guest", details=details)


# --- User-Mode Linux


def measure_uml(span: Span, tell: Tell) -> list[Result]:
    """Boot once, and copy.

    Raises:
        LocalError: As above.
    """
    if missing := missing_packages("uml"):
        return uml_results({}, f"not installed: {' '.join(missing)}")
    copies = [
        jobs.Copy(side, pattern, block, number)
        for block in BLOCKS
        for pattern in PATTERNS
        for number, side in jobs.in_turns(span.rounds)
    ]
    tell("vhost_user: User-Mode Linux boots, and dd loads both disks in turns")
    with booted("uml", jobs.dd_script(copies, span.megabytes), {}) as machine:
        machine.wait_for(jobs.END, BOOT_WITHIN_S + 4.0 * len(copies))
        return uml_results(jobs.dd_rates(machine.output))


def uml_results(found: Mapping[jobs.Copy, float], skipped: str = "") -> list[Result]:
    """A row for each load.

    Args:
        found: MiB a second.
        skipped: Why nothing was measured.
    """
    results = []
    for block, name in BLOCKS.items():
        for pattern in PATTERNS:
            sides = {
                side: [rate for copy, rate in found.items() if copy[:3] == (side, pattern, block)]
                for side in jobs.SIDES
            }
            key, title = f"uml_{pattern}_{block >> 10}k", f"UML, dd {pattern}s {name}"
            results.append(_result(key, title, "MiB/s", None, sides, skipped))
    return results


def _result(
    key: str, title: str, unit: str, target: Target | None, sides: Mapping[str, list[float]], skipped: str
) -> Result:
    if skipped or not all(sides.values()):
        reason = skipped or "the guest has reported nothing"
        return Result(key, title, unit, target, base_name=BASE, skipped=reason)
    ours, base = _figures(sides["ours"]), _figures(sides["base"])
    return Result(
        key, title, unit, target, ours, base, BASE, details={side: list(rates) for side, rates in sides.items()}
    )


def _figures(values: list[float]) -> Figures:
    return summarise([[value] for value in values])
