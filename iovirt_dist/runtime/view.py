"""What run directories tell of a topology's processes: what ``iovirt ps`` and ``iovirt top`` look at.

A view is data only, so that it can be merged with those of other hosts. Nothing in it is trusted: a status file may be
absent, old, or written by something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status, read_status_file
from iovirt_dist.topology.specs import Topology, host_folder


@dataclass(frozen=True, slots=True)
class View:
    """The processes of one host, or of several.

    Attributes:
        statuses: What each process said last, by name; it may be gone since.
        alive: Names of those that exist now.
        supervised: What the supervisor says of each of its processes: see `supervise.Managed.to_json`.
    """

    statuses: Mapping[str, ProcessStatus] = field(default_factory=dict)
    alive: frozenset[str] = frozenset()
    supervised: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def living(self) -> dict[str, ProcessStatus]:
        """The statuses that hold."""
        return {name: status for name, status in self.statuses.items() if name in self.alive}


def view_run_dir(run_dir: RunDir) -> View:
    """Look at one run directory; one that does not exist tells nothing."""
    statuses = read_status(run_dir)
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    rows = supervisor.content.get("processes") if supervisor is not None and supervisor.alive else None
    return View(
        statuses,
        frozenset(name for name, status in statuses.items() if status.alive),
        {name: row for name, row in rows.items() if isinstance(row, dict)} if isinstance(rows, dict) else {},
    )


def merge_views(views: Iterable[View]) -> View:
    """Lay views over each other; of a process that several tell of, one that is alive counts, else the last."""
    statuses: dict[str, ProcessStatus] = {}
    supervised: dict[str, Mapping[str, Any]] = {}
    alive: set[str] = set()
    for view in views:
        statuses |= {name: status for name, status in view.statuses.items() if name in view.alive or name not in alive}
        alive |= view.alive
        supervised |= view.supervised
    return View(statuses, frozenset(alive), supervised)


def view_topology(topology: Topology) -> View:
    """Look at a topology's run directory, and at those of its hosts that are on this machine."""
    folders = [topology.run_dir]
    if not topology.host:
        folders += [host_folder(topology.run_dir, host) for host in topology.hosts]
    return merge_views(view_run_dir(RunDir(folder)) for folder in folders)
