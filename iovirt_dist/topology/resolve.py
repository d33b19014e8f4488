"""From tables to the checked topology: names, references, paths, addresses, extents, replicas.

Each check names the file, the key and, where two things collide, both of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import ProcessName
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.keys import check_addresses
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.resolve_controllers import ControllerResolver
from iovirt_dist.topology.resolve_guests import GuestResolver
from iovirt_dist.topology.resolve_hosts import HostResolver, Placement
from iovirt_dist.topology.resolve_net import check_networks
from iovirt_dist.topology.scaling import NOT_SCALED, Scaling
from iovirt_dist.topology.scope import Origin, Scope
from iovirt_dist.topology.specs import NATIVE, ControllerSpec, DriverDomainSpec, HypervisorSpec, Topology

__all__ = ["Origin", "resolve_topology"]


def resolve_topology(document: schema.Document, origin: Origin, scaling: Scaling = NOT_SCALED) -> Topology:
    """Check a document's references and turn it into a topology.

    Args:
        document: The file's tables.
        origin: Where it comes from.
        scaling: What was scaled since the topology came up.

    Returns:
        The topology with absolute paths, full addresses and expanded replicas.

    Raises:
        ConfigError: Something is contradictory; `where` names file and key.
        EndpointError: A socket path is too long.
    """
    table = document.topology
    scope = Scope(origin, table.run_dir)
    lease_ns = scope.quantity(table.lease, units.parse_duration_ns, scope.where("topology", "lease"))
    if lease_ns == 0:
        raise ConfigError("the lease must be longer than 0", scope.where("topology", "lease"))
    hosts = HostResolver(scope, document.host)
    hypervisors = _hypervisors(scope, hosts, document)
    controllers = ControllerResolver(scope, hosts, hypervisors).resolve(document.controller)
    domains = _driver_domains(scope, hosts, document, controllers)
    placement = Placement(hosts.hosts, hypervisors)
    guests = GuestResolver(scope, hypervisors, controllers, placement, scaling).resolve(document.guest)
    check_networks(scope, controllers, guests.specs, document.guest)
    topology = Topology(
        name=table.name,
        source=origin.source,
        run_dir=scope.run_dir,
        lease_ns=lease_ns,
        hypervisors=hypervisors,
        controllers=controllers,
        guests=guests.specs,
        label=origin.label,
        driver_domains=domains,
        hosts=hosts.hosts,
        keys=scope.path(table.keys) if table.keys else None,
        counts=guests.counts,
        groups=guests.groups,
        reach=guests.reach,
        homes=guests.homes,
        revision=scaling.revision,
    )
    check_addresses(topology)
    return topology


def _hypervisors(scope: Scope, hosts: HostResolver, document: schema.Document) -> dict[ProcessName, HypervisorSpec]:
    found: dict[ProcessName, HypervisorSpec] = {}
    for key, table in document.hypervisor.items():
        name, host = ProcessName(key), hosts.host(table.host, scope.where("hypervisor", key, "host"))
        endpoint = hosts.endpoint(table.endpoint, "hypervisor", key, host)
        found[name] = HypervisorSpec(name=name, endpoint=endpoint, host=host)
    return found


def _driver_domains(
    scope: Scope, hosts: HostResolver, document: schema.Document, controllers: Mapping[ProcessName, ControllerSpec]
) -> dict[ProcessName, DriverDomainSpec]:
    """Check that devices and driver domains fit each other; a domain that serves nothing is a mistake."""
    found: dict[ProcessName, DriverDomainSpec] = {}
    for key, table in document.driver_domain.items():
        scope.claim_name(key, scope.where("driver_domain", key))
        host = hosts.host(table.host, scope.where("driver_domain", key, "host"))
        devices = tuple(name for name, spec in controllers.items() if spec.driver == key)
        if not devices:
            fix = f'set driver = "{key}" in a controller, or remove the table'
            raise ConfigError("the driver domain serves no device", scope.where("driver_domain", key), fix)
        found[ProcessName(key)] = DriverDomainSpec(name=ProcessName(key), host=host, devices=devices)
    for name, spec in controllers.items():
        where = scope.where("controller", name, "driver")
        if spec.driver != NATIVE and spec.driver not in found:
            raise ConfigError(f"no driver domain '{spec.driver}'", where, suggestion(spec.driver, [NATIVE, *found]))
        if spec.driver != NATIVE and found[ProcessName(spec.driver)].host != spec.host:
            what = f"'{name}' is on host '{spec.host}', its driver domain on '{found[ProcessName(spec.driver)].host}'"
            raise ConfigError(what, where, "put both on one host")
    return found
