"""``iovirt scale``: more or fewer guests while the topology runs, over all its hosts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail, note, print_json
from iovirt_dist.runtime.control_messages import ReadStatus, StatusRead
from iovirt_dist.runtime.host_control import ask_hosts
from iovirt_dist.runtime.remote_view import view_reply
from iovirt_dist.runtime.rundir import SUPERVISOR
from iovirt_dist.runtime.scale import Change, make_change, parse_counts, plan_change, refusal
from iovirt_dist.runtime.status import parse_status
from iovirt_dist.topology import Topology

WAIT_S: Final = 20.0
"""How long guests may take to start and to end."""

_POLL_S: Final = 0.1


def scale(topology: Topology, words: Sequence[str], *, as_json: bool) -> int:
    """The work of ``iovirt scale``; without words it shows what there is.

    Raises:
        ConfigError: There is no such guest table, or the topology cannot be so.
        LocalError: A host does not answer, or cannot do it.
    """
    change = plan_change(topology, parse_counts(list(words), topology))
    make_change(topology, change)
    problems = _wait(topology, change) if change.scaling is not None else []
    _show(change, problems, as_json=as_json)
    return EXIT_FAILED if problems else EXIT_DONE


def _show(change: Change, problems: Sequence[str], *, as_json: bool) -> None:
    after = change.after
    for problem in problems:
        fail(problem)
    if as_json:
        guests: dict[str, Any] = {
            name: {"hypervisor": guest.hypervisor, "host": after.host_of(guest) or None}
            for name, guest in after.guests.items()
        }
        lists = {"added": change.added, "removed": change.removed, "problems": list(problems)}
        print_json({"counts": dict(after.counts), **lists, "guests": guests})
        return
    for name in change.removed:
        note(f"{name} removed")
    for name in change.added:
        guest = after.guest(name)
        host = after.host_of(guest)
        note(f"{name} started on {guest.hypervisor}{f', host {host}' if host else ''}")
    note(" ".join(f"{group}={count}" for group, count in after.counts.items()))


def _wait(topology: Topology, change: Change) -> list[str]:
    """Wait until every host has done it; returns a line for each host and guest that has not."""
    deadline = time.monotonic() + WAIT_S
    while (problems := _missing(topology, change)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return problems


def _missing(topology: Topology, change: Change) -> list[str]:
    """Say what is not as it should be yet."""
    assert change.scaling is not None
    problems: list[str] = []
    alive: set[str] = set()
    for host, reply in ask_hosts(topology, {host: ReadStatus(0) for host in topology.hosts or [""]}).items():
        if not isinstance(reply, StatusRead):
            problems.append(refusal(reply))
            continue
        alive |= view_reply(reply).alive
        problems += _behind(host, reply, change.scaling.revision)
    problems += [f"{name} has not started yet; see 'iovirt logs {name}'" for name in change.added if name not in alive]
    return problems + [f"{name} has not ended yet" for name in change.removed if name in alive]


def _behind(host: str, reply: StatusRead, revision: int) -> list[str]:
    """Name processes of a host that cannot follow, and the host itself while it has not."""
    problems: list[str] = []
    where = f" on host '{host}'" if host else ""
    for report in reply.processes:
        status = parse_status(report.content)
        if status is None or not report.alive:
            continue
        if reason := status.content.get("scale_problem"):
            problems.append(f"{'supervisor' if report.name == SUPERVISOR else report.name}{where}: {reason}")
        elif report.name == SUPERVISOR and status.content.get("revision", 0) < revision:
            problems.append(f"the supervisor{where} has not followed yet")
    return problems
