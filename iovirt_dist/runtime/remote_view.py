"""What the processes of all hosts say of themselves, gathered over host control."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from iovirt_dist.runtime.control_messages import ReadScaling, ReadStatus, Refused, ScalingRead, StatusRead
from iovirt_dist.runtime.host_control import ask_hosts
from iovirt_dist.runtime.rundir import SUPERVISOR
from iovirt_dist.runtime.status import ProcessStatus, parse_status
from iovirt_dist.runtime.view import View, merge_views, view_topology
from iovirt_dist.topology.load import host_part, load_topology
from iovirt_dist.topology.specs import Topology

DEADLINE_S = 2.0
"""How long hosts may take to answer somebody who only looks."""


@dataclass(frozen=True, slots=True)
class HostsView:
    """All that is to be seen of a topology from here.

    Attributes:
        topology: As it is scaled now.
        view: Its processes.
        problems: Why a host tells nothing, one line, by host.
    """

    topology: Topology
    view: View
    problems: dict[str, str] = field(default_factory=dict)


def view_hosts(topology: Topology, deadline_s: float = DEADLINE_S) -> HostsView:
    """Look at a topology: at all its hosts if it has several and none was chosen, else at the files that are here.

    Args:
        topology: A host's part, or all of it.
        deadline_s: How long hosts may take to answer; those that do not are told as problems.

    Raises:
        ConfigError: The keys that are needed to ask are not here.
    """
    if topology.host or len(topology.hosts) < 2:
        return HostsView(topology, view_topology(topology))
    now = time.monotonic()
    scaled = _scaled(topology, deadline_s / 2)
    replies = ask_hosts(scaled, {host: ReadStatus(0) for host in topology.hosts}, deadline_s - (time.monotonic() - now))
    views = [view_reply(reply) for reply in replies.values() if isinstance(reply, StatusRead)]
    problems = {host: reply.what for host, reply in replies.items() if isinstance(reply, Refused)}
    return HostsView(scaled, merge_views(views), problems)


def view_reply(reply: StatusRead) -> View:
    """Turn what a host has sent into a view, its times into ours; of a file that is no status only the name."""
    shift_ns = time.time_ns() - reply.now_ns
    statuses: dict[str, ProcessStatus] = {}
    supervised: dict[str, Any] = {}
    for report in reply.processes:
        status = parse_status(report.content)
        if report.name == SUPERVISOR:
            rows = status.content.get("processes") if status is not None and report.alive else None
            supervised = rows if isinstance(rows, dict) else {}
        elif status is not None:
            statuses[report.name] = replace(
                status, started_ns=status.started_ns + shift_ns, updated_ns=status.updated_ns + shift_ns
            )
        else:
            statuses[report.name] = ProcessStatus(name=report.name)
    alive = frozenset(report.name for report in reply.processes if report.alive and report.name != SUPERVISOR)
    return View(statuses, alive, {name: row for name, row in supervised.items() if isinstance(row, dict)})


def _scaled(topology: Topology, deadline_s: float) -> Topology:
    """The topology as the host says that was told last."""
    replies = ask_hosts(topology, {host: ReadScaling(0) for host in topology.hosts}, deadline_s)
    told = [reply.scaling for reply in replies.values() if isinstance(reply, ScalingRead)]
    latest = max(told, key=lambda scaling: scaling.revision, default=None)
    if latest is None or not latest.revision:
        return topology
    return host_part(load_topology(topology.source, latest), topology.host)
