"""Which keys a topology's processes have, and whose they believe.

Every process has a key pair of its own, with two exceptions. The replicas of a guest table share the table's, so that
`iovirt scale` needs no new keys on other hosts while the topology runs; they are one owner's copies of one guest, and
each still has its own name, its own devices and its own session. What a driver domain serves is served with the
domain's, since it is one process. A host's supervisor has the key ``@HOST``.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import GuestName, HostName, ProcessName
from iovirt_dist.topology.specs import NATIVE, Topology

SUPERVISOR_MARK: Final = "@"
"""Begins the name of a supervisor's key; no process name does."""


def supervisor_key(host: str) -> str:
    """Name of the key of a host's supervisor."""
    return f"{SUPERVISOR_MARK}{host}"


def key_of(topology: Topology, name: str) -> str:
    """Name of the key with which a process, or a controller in a driver domain, talks."""
    controller = topology.controllers.get(ProcessName(name))
    if controller is not None:
        return name if controller.driver == NATIVE else controller.driver
    return topology.groups.get(GuestName(name), name)


def key_hosts(topology: Topology) -> dict[str, tuple[HostName, ...]]:
    """All keys of a topology, with the hosts where the secret half belongs; ``""`` stands for a host without a name."""
    hosts: dict[str, tuple[HostName, ...]] = {}
    for spec in topology.controllers.values():
        if spec.driver == NATIVE:
            hosts[spec.name] = (spec.host,)
    hosts |= {domain.name: (domain.host,) for domain in topology.driver_domains.values()}
    hosts |= {hypervisor.name: (hypervisor.host,) for hypervisor in topology.hypervisors.values()}
    for table, hypervisors in topology.homes.items():
        hosts[table] = tuple(dict.fromkeys(topology.hypervisors[name].host for name in hypervisors))
    hosts |= {supervisor_key(host): (host,) for host in topology.hosts}
    return hosts


def clients_of(topology: Topology, name: str) -> frozenset[str]:
    """Names of the keys that may open sessions at a hypervisor's or a controller's endpoint."""
    if name in topology.hypervisors:
        return frozenset(table for table, homes in topology.homes.items() if name in homes)
    controller = topology.controller(name)
    return frozenset(h for h in topology.hypervisors if controller in topology.controllers_of(h))


def check_addresses(topology: Topology) -> None:
    """Refuse to listen beyond this machine without keys, and two owners of one key.

    Raises:
        ConfigError: A tcp endpoint is no loopback address and there are no keys; or a guest table of several has the
            name of a process.
    """
    if topology.keys is not None:
        for table in topology.homes:
            processes = {*topology.controllers, *topology.driver_domains, *topology.hypervisors}
            if table in processes:
                where = f"{topology.label}: guest.{table}"
                raise ConfigError(f"'{table}' is a process's name and would share its key", where, "rename one of them")
        return
    listening: list[tuple[str, str, str]] = []
    listening += [("controller", spec.name, spec.endpoint) for spec in topology.controllers.values()]
    listening += [("hypervisor", spec.name, spec.endpoint) for spec in topology.hypervisors.values()]
    listening += [("host", host.name, host.control) for host in topology.hosts.values()]
    for table, name, endpoint in listening:
        if endpoint.startswith("tcp://") and not is_loopback(endpoint):
            fix = "set topology.keys = \"keys\" and run 'iovirt keys', or use a loopback address"
            where = f"{topology.label}: {table}.{name}"
            raise ConfigError(f"{endpoint} is open to everybody, and there are no keys", where, fix)


def is_loopback(endpoint: str) -> bool:
    """Whether a tcp address can be reached from this machine only: 127.0.0.0/8, ::1 or ``localhost``."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def units_of(topology: Topology, controller: str) -> dict[str, frozenset[str]]:
    """Names of the units of a controller that each hypervisor's guests have, by hypervisor.

    They are a disk's extents and overlays, terminals, a switch's ports; an entropy controller's one has no name.
    """
    units: dict[str, set[str]] = {name: set() for name in topology.hypervisors}
    for guest in topology.guests.values():
        found = units[guest.hypervisor]
        found.update(console.terminal for console in guest.terminals if console.controller == controller)
        if guest.disk is not None and guest.disk.controller == controller:
            found.add(guest.disk.unit)
        if guest.net is not None and guest.net.controller == controller:
            found.add(guest.net.port)
        if guest.rng is not None and guest.rng.controller == controller:
            found.add("")
    return {name: frozenset(found) for name, found in units.items()}
