"""Hosts: who runs where, the ports of their controllers, and which hypervisor has room for a guest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import NO_HOST, HostName, ProcessName
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.scope import NAME, Scope
from iovirt_dist.topology.specs import HostSpec, HypervisorSpec


class HostResolver:
    """The hosts of a topology.

    Args:
        scope: The topology that they belong to.
        tables: Hosts as written.

    Raises:
        ConfigError: A host is contradictory.
    """

    def __init__(self, scope: Scope, tables: Mapping[str, schema.HostTable]) -> None:
        self._scope = scope
        self.hosts = {HostName(name): self._host(name, table) for name, table in tables.items()}
        self._ports: dict[str, Iterator[int]] = {name: count(table.first_port) for name, table in tables.items()}

    @property
    def several(self) -> bool:
        """Whether processes may be on different hosts, so that sockets of one are out of reach for the other."""
        return len(self.hosts) > 1

    def host(self, written: str, where: str) -> HostName:
        """Return the host that a process names, or the only one.

        Raises:
            ConfigError: There is none of that name, or several and none is named.
        """
        if written in self.hosts:
            return HostName(written)
        if written:
            fix = suggestion(written, self.hosts) if self.hosts else "add a table [host.NAME], or remove this key"
            raise ConfigError(f"no host '{written}'", where, fix)
        if self.several:
            raise ConfigError("which host?", where, f"name one: {', '.join(self.hosts)}")
        return next(iter(self.hosts), NO_HOST)

    def endpoint(self, written: str, table: str, name: str, host: HostName) -> str:
        """Take the name and the endpoint of a process that listens; returns the full address.

        Without one that is written, a controller of a topology with several hosts listens at the next port of its own.

        Raises:
            ConfigError: Name or endpoint is wrong or taken.
            EndpointError: The socket path is too long.
        """
        if not written and self.several and table == "controller":
            written = f"tcp://{self.hosts[host].address}:{next(self._ports[host])}"
        return self._scope.endpoint(written, table, name, host)

    def _host(self, name: str, table: schema.HostTable) -> HostSpec:
        if not NAME.fullmatch(name):
            fix = "use letters, digits, '_', '.' and '-', a letter or digit first"
            raise ConfigError(f"'{name}' is no name", self._scope.where("host", name), fix)
        memory_bytes = self._scope.quantity(table.memory, units.parse_size, self._scope.where("host", name, "memory"))
        address = f"[{table.address}]" if ":" in table.address else table.address
        control = self._scope.address(f"tcp://{address}:{table.control_port}", name, "host", name, "address")
        return HostSpec(name=HostName(name), address=address, control=control, memory_bytes=memory_bytes)


class Placement:
    """Chooses a hypervisor for each guest that may have several, the same on every host that resolves the topology.

    Args:
        hosts: By name.
        hypervisors: By name.
    """

    def __init__(self, hosts: Mapping[HostName, HostSpec], hypervisors: Mapping[ProcessName, HypervisorSpec]) -> None:
        self._hosts = hosts
        self._hypervisors = hypervisors
        self._used: dict[HostName, int] = dict.fromkeys((*hosts, NO_HOST), 0)
        self._guests: dict[str, int] = dict.fromkeys(hypervisors, 0)
        self._kept: dict[str, ProcessName] = {}

    def keep(self, guest: str, hypervisor: str, memory_bytes: int) -> None:
        """Say where a guest is already, before any other guest is placed."""
        self._kept[guest] = ProcessName(hypervisor)
        self._take(hypervisor, memory_bytes)

    def place(self, guest: str, choices: Sequence[str], memory_bytes: int, where: str) -> ProcessName:
        """Return the hypervisor whose host has most memory left, of equals the one with the fewest guests.

        Args:
            guest: Name of the guest; one that is somewhere already stays there.
            choices: Names of hypervisors that exist; at least one.
            memory_bytes: What the guest takes.
            where: File and key for messages.

        Raises:
            ConfigError: No host has room.
        """
        if guest in self._kept:
            return self._kept[guest]
        fitting = [name for name in choices if self._free(name) >= memory_bytes]
        if not fitting:
            need = units.format_size(memory_bytes)
            hosts = ", ".join(sorted({self._host(name) for name in choices}))
            raise ConfigError(f"no room for {need} on {hosts}", where, "enlarge host memory, or have fewer guests")
        chosen = max(fitting, key=lambda name: (self._free(name), -self._guests[name]))
        self._take(chosen, memory_bytes)
        return ProcessName(chosen)

    def _take(self, hypervisor: str, memory_bytes: int) -> None:
        self._used[self._host(hypervisor)] += memory_bytes
        self._guests[hypervisor] += 1

    def _host(self, hypervisor: str) -> HostName:
        return self._hypervisors[ProcessName(hypervisor)].host

    def _free(self, hypervisor: str) -> float:
        host = self._host(hypervisor)
        limit = self._hosts[host].memory_bytes if host in self._hosts else 0
        return limit - self._used[host] if limit else float("inf")
