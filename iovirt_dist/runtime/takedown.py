"""Take a running topology down from outside, whatever is left of it."""

from __future__ import annotations

import os
import select
import signal
from typing import Final, NamedTuple

from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status, read_status_file, start_ticks

SUPERVISOR_GRACE_S: Final = 25.0
"""Longer than a supervisor needs if in each step of its stopping order a process ignores SIGTERM."""

ORPHAN_GRACE_S: Final = 5.0


class TakenDown(NamedTuple):
    """What `take_down` did.

    Attributes:
        stopped: Names of the processes that ran before and do not now; the supervisor is not among them.
        killed: Those of them, or the supervisor (``_up``), that had to be killed.
        removed: Files that were removed, relative to the run directory.
    """

    stopped: list[str]
    killed: list[str]
    removed: list[str]


def end_process(pid: int, ticks: int, grace_s: float) -> bool:
    """Send SIGTERM, wait, send SIGKILL if that did not help.

    Args:
        pid: Process number.
        ticks: Its start time as `status.start_ticks` gives it: a later process of that number is left alone.
        grace_s: How long to wait before SIGKILL, and after it.

    Returns:
        Whether it had to be killed.

    Raises:
        LocalError: It survives SIGKILL (uninterruptible I/O), or belongs to somebody else.
    """
    if pid <= 0:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_ticks(pid) != ticks:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, number)
            if select.select((descriptor,), (), (), grace_s)[0]:  # readable once the process is gone, pidfd_open(2)
                return number is signal.SIGKILL
    except ProcessLookupError:
        return False
    except PermissionError:
        raise LocalError("the process belongs to another user", f"pid {pid}") from None
    finally:
        os.close(descriptor)
    raise LocalError("the process does not end", f"pid {pid}", "it hangs in the kernel; look at its stack in /proc")


def take_down(run_dir: RunDir) -> TakenDown:
    """Stop what runs in a run directory and remove its sockets, locks, links and status files.

    Works with and without a supervisor (honcho), and when half of the processes are dead.

    Raises:
        LocalError: A process cannot be stopped, or another supervisor has just started.
    """
    if not run_dir.path.is_dir():
        return TakenDown([], [], [])
    alive = [status for status in read_status(run_dir).values() if status.alive]
    names = {status.name for status in alive}
    killed: list[str] = []
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    if supervisor is not None:
        rows = _rows(supervisor)
        names |= {row.name for row in rows if row.alive}
        alive += rows
        if end_process(supervisor.pid, supervisor.start_ticks, SUPERVISOR_GRACE_S):
            killed.append(SUPERVISOR)
    # orphans: there was no supervisor, or it was killed
    killed += [status.name for status in alive if end_process(status.pid, status.start_ticks, ORPHAN_GRACE_S)]
    with run_dir.locked():
        removed = [str(path.relative_to(run_dir.path)) for path in run_dir.clean()]
    return TakenDown(sorted(names), killed, removed)


def _rows(supervisor: ProcessStatus) -> list[ProcessStatus]:
    """What a supervisor's status file says about the processes it started, some of which wrote no status yet."""
    rows: dict[str, dict[str, int]] = supervisor.content.get("processes", {})
    return [
        ProcessStatus(name=name, pid=row.get("pid", 0), start_ticks=row.get("start_ticks", 0))
        for name, row in rows.items()
    ]
