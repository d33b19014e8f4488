"""What the processes of a placement counted, from their status files; see `iovirt_dist.compare.placement`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from iovirt_dist.compare.placement import DEVICES, DISK, HYPERVISOR, Code
from iovirt_dist.hypervisor.linux.cost import count_code_lines

Content = Mapping[str, Any]
"""What a status file tells."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What one guest's I/O had done by some moment.

    Attributes:
        messages: Numbered messages by process: those that it sent and took, each counted at both of its ends.
        cpu_ns: CPU time by process.
    """

    messages: Mapping[str, int]
    cpu_ns: Mapping[str, int]


def devices_of(statuses: Mapping[str, Content]) -> dict[str, Content]:
    """What is told of each device, whichever process serves it, by controller."""
    found: dict[str, Content] = {}
    for name, content in statuses.items():
        if name in DEVICES.values():
            found[name] = content
        if name != HYPERVISOR:
            found |= content.get("devices", {})
    return {name: content for name, content in found.items() if name in DEVICES.values()}


def servers_of(statuses: Mapping[str, Content]) -> dict[str, str]:
    """Names of the processes that serve the three devices, by controller."""
    served = {name: name for name in statuses if name in DEVICES.values()}
    for process, content in statuses.items():
        if process != HYPERVISOR:
            served |= {name: process for name in content.get("devices", {}) if name in DEVICES.values()}
    return served


def passed(statuses: Mapping[str, Content], guest: str) -> Passed:
    """Add up what the processes counted for one guest and its devices.

    Args:
        statuses: Contents by process; a guest that is not there has done nothing yet.
        guest: Which.
    """
    hypervisor = statuses.get(HYPERVISOR, {})
    own = _numbered(statuses.get(guest, {}))
    pairs = hypervisor.get("controllers", {})
    messages = {guest: own, HYPERVISOR: _numbered(hypervisor.get("guests", {}).get(guest, {}))}
    for name in pairs.keys() & set(DEVICES.values()):
        messages[HYPERVISOR] += _numbered(pairs[name])
    servers, devices = servers_of(statuses), devices_of(statuses)
    for name, process in servers.items():
        sessions = devices.get(name, {}).get("sessions", {})
        messages[process] = messages.get(process, 0) + sum(map(_numbered, sessions.values()))
    names = (guest, HYPERVISOR, *servers.values())
    return Passed(messages, {name: statuses.get(name, {}).get("cpu_ns", 0) for name in names})


def since(now: Passed, before: Passed) -> Passed:
    """What has been added."""
    return Passed(
        {name: count - before.messages.get(name, 0) for name, count in now.messages.items()},
        {name: spent - before.cpu_ns.get(name, 0) for name, spent in now.cpu_ns.items()},
    )


def agreed(statuses: Mapping[str, Content], guest: str) -> bool:
    """Whether both ends of the guest's session and of the disk's tell the same: nothing is on its way."""
    hypervisor = statuses.get(HYPERVISOR, {})
    mine = statuses.get(guest, {})
    theirs = hypervisor.get("guests", {}).get(guest, {})
    pair = hypervisor.get("controllers", {}).get(DISK, {})
    session = devices_of(statuses).get(DISK, {}).get("sessions", {}).get(HYPERVISOR, {})
    return bool(mine and theirs and pair and session) and _match(mine, theirs) and _match(pair, session)


def code_of(classes: Mapping[str, str]) -> Code:
    """Count the code of classes in the sources.

    Args:
        classes: Their modules by name.
    """
    modules = sorted(set(classes.values()))
    sources = [inspect.getsource(importlib.import_module(module)) for module in modules]
    return Code(tuple(classes), sum(map(count_code_lines, sources)))


def classes_of(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Modules by class of a hypervisor's drivers, each once."""
    return {row["class"]: row["module"] for row in rows}


def _numbered(session: Mapping[str, Any]) -> int:
    return int(session.get("messages_in", 0)) + int(session.get("messages_out", 0))


def _match(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one["messages_in"], one["messages_out"]) == (other["messages_out"], other["messages_in"])
