"""Scaling a running topology: what must hold before anything is changed, and the change on all hosts.

All hosts must answer, and have come up with the same topology file. The topology is resolved as it is to be, with the
guests that run where they are, and each host is asked whether it can have that. Then each is told, in the file's order.
The first one decides between two commands at once: a host takes a change only of the revision that it has, so the
slower command ends there and has changed nothing. A host that has missed a change (it was down) gets it with the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.runtime.control_messages import Agreed, AnyReply, ChangeScaling, ReadScaling, Refused, ScalingRead
from iovirt_dist.runtime.host_control import ask_hosts
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import write_scaling
from iovirt_dist.topology.load import host_part, load_topology
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.scaling import MAX_REPLICAS, NOT_SCALED, Scaling, read_scaling
from iovirt_dist.topology.specs import Topology

ADOPT_S: Final = 1.0
"""How long a host that starts waits for the others to say how they were scaled."""


class Change(NamedTuple):
    """A change that has been planned.

    Attributes:
        before: The topology as it is.
        after: As it is to be.
        scaling: What hosts are told; None if there is nothing to tell.
        revisions: What each host has now.
    """

    before: Topology
    after: Topology
    scaling: Scaling | None
    revisions: Mapping[str, int]

    @property
    def added(self) -> list[str]:
        """Names of guests that are to start."""
        return [name for name in self.after.guests if name not in self.before.guests]

    @property
    def removed(self) -> list[str]:
        """Names of guests that are to end."""
        return [name for name in self.before.guests if name not in self.after.guests]


def parse_counts(words: list[str], topology: Topology) -> dict[str, int]:
    """Turn ``NAME=N`` words into replicas by guest table.

    Raises:
        ConfigError: A word is none, or there is no such table.
    """
    counts: dict[str, int] = {}
    for word in words:
        name, equals, number = word.partition("=")
        where = f"'{word}'"
        if not equals:
            raise ConfigError("expected NAME=N", where, "such as guest=4")
        if name not in topology.counts:
            hint = f"it is one of [guest.{topology.groups[name]}]" if name in topology.groups else ""  # type: ignore[index]  # names are strings
            raise ConfigError(f"no guest table '{name}'", where, hint or suggestion(name, topology.counts))
        if not (number.isascii() and number.isdecimal() and len(number) < 6 and int(number) <= MAX_REPLICAS):
            raise ConfigError(f"expected a number from 0 to {MAX_REPLICAS}, got '{number}'", where)
        counts[name] = int(number)
    return counts


def plan_change(topology: Topology, counts: Mapping[str, int]) -> Change:
    """Ask the hosts how things are, and decide what is to be.

    Args:
        topology: A host's part, or all of it.
        counts: Replicas by guest table, of those that are to change.

    Raises:
        ConfigError: The topology cannot be so: no room, no extent, a name that is taken.
        LocalError: A host does not answer, or is up with another topology file.
    """
    hosts = [str(host) for host in topology.hosts] or [""]
    replies = ask_hosts(topology, {host: ReadScaling(0) for host in hosts})
    told = _scalings(replies)
    for host, reply in told.items():
        if reply.digest != topology.digest:
            where = f"host '{host}'" if host else topology.label
            raise LocalError("is up with another topology file", where, "take it down and up again")
    latest = max((reply.scaling for reply in told.values()), key=lambda scaling: scaling.revision)
    before = _resolve(topology, latest)
    draft = Scaling(
        latest.revision + 1,
        topology.digest,
        {**latest.counts, **counts},
        {str(guest.name): str(guest.hypervisor) for guest in before.guests.values()},
    )
    after = _resolve(topology, draft)
    revisions = {host: reply.scaling.revision for host, reply in told.items()}
    if before.counts == after.counts:
        agree = set(revisions.values()) == {latest.revision}
        return Change(before, before, None if agree else latest, revisions)
    _check_reach(topology, after)
    places = {str(guest.name): str(guest.hypervisor) for guest in after.guests.values()}
    return Change(before, after, Scaling(draft.revision, draft.digest, draft.counts, places), revisions)


def make_change(topology: Topology, change: Change) -> None:
    """Tell the hosts; they do it by themselves.

    Raises:
        LocalError: A host cannot, or was scaled by somebody else meanwhile; `what` says if others have done it already.
    """
    if change.scaling is None:
        return
    behind = {host: seen for host, seen in change.revisions.items() if seen < change.scaling.revision}
    tries = {host: ChangeScaling(0, seen, change.scaling, True) for host, seen in behind.items()}
    for reply in ask_hosts(topology, tries).values():
        _agreed(reply, "")
    done: list[str] = []
    for host, seen in behind.items():
        request = ChangeScaling(0, seen, change.scaling, False)
        _agreed(ask_hosts(topology, {host: request})[host], f"; told already: {', '.join(done)}" if done else "")
        done.append(host)


def adopt(topology: Topology, deadline_s: float = ADOPT_S) -> Topology:
    """Take over how the other hosts were scaled, before this one starts: else it might start what is elsewhere now.

    Args:
        topology: The host's part; nothing of it runs.
        deadline_s: How long to wait for the others; those that do not answer are not up yet, or will be told later.

    Returns:
        The host's part as it is to be started.

    Raises:
        ImageError: A guest's image is missing.
        LocalError: The run directory cannot be written.
    """
    others = {str(host): ReadScaling(0) for host in topology.hosts if topology.host and host != topology.host}
    told = [reply for reply in ask_hosts(topology, others, deadline_s).values() if isinstance(reply, ScalingRead)]
    scalings = [reply.scaling for reply in told if reply.digest == topology.digest]
    latest = max(scalings, key=lambda scaling: scaling.revision, default=NOT_SCALED)
    if latest.revision <= topology.revision:
        return topology
    write_scaling(RunDir(topology.run_dir), read_scaling(topology.run_dir).revision, latest)
    adopted = _resolve(topology, latest)
    for error in adopted.missing_images():
        raise error
    return adopted


def _scalings(replies: Mapping[str, AnyReply]) -> dict[str, ScalingRead]:
    """What all hosts have told; a `LocalError` names those that have not."""
    told = {host: reply for host, reply in replies.items() if isinstance(reply, ScalingRead)}
    missing = [refusal(reply) for host, reply in replies.items() if host not in told]
    if missing:
        raise LocalError("; ".join(missing))
    return told


def refusal(reply: AnyReply) -> str:
    """Why a host did not do what it was asked."""
    return reply.what if isinstance(reply, Refused) else "a host answers something else"


def _agreed(reply: AnyReply, done: str) -> None:
    if not isinstance(reply, Agreed):
        raise LocalError(f"{refusal(reply)}{done}")


def _resolve(topology: Topology, scaling: Scaling) -> Topology:
    return host_part(load_topology(topology.source, scaling), topology.host)


def _check_reach(topology: Topology, after: Topology) -> None:
    """Refuse guests whose hypervisor has no queue pair to a controller of theirs: pairs are made when it starts."""
    plain = load_topology(topology.source)
    for guest in after.guests.values():
        there = {controller.name for controller in plain.controllers_of(guest.hypervisor)}
        for name in guest.controllers:
            if name not in there:
                what = f"guest '{guest.name}' needs controller '{name}', which '{guest.hypervisor}' does not use yet"
                raise ConfigError(what, topology.label, "have more guests in the file, and take it down and up again")
