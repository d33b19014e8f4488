"""From tables to the checked topology: names, references, paths, addresses, extents, replicas.

Each check names the file, the key and, where two things collide, both of them.
"""

from __future__ import annotations

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import ProcessName
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.resolve_controllers import ControllerResolver
from iovirt_dist.topology.resolve_guests import GuestResolver
from iovirt_dist.topology.resolve_net import check_networks
from iovirt_dist.topology.scope import Origin, Scope
from iovirt_dist.topology.specs import HypervisorSpec, Topology

__all__ = ["Origin", "resolve_topology"]


def resolve_topology(document: schema.Document, origin: Origin) -> Topology:
    """Check a document's references and turn it into a topology.

    Args:
        document: The file's tables.
        origin: Where it comes from.

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
    hypervisors = {
        ProcessName(name): HypervisorSpec(
            name=ProcessName(name), endpoint=scope.endpoint(entry.endpoint, "hypervisor", name)
        )
        for name, entry in document.hypervisor.items()
    }
    controllers = ControllerResolver(scope).resolve(document.controller)
    guests = GuestResolver(scope, hypervisors, controllers).resolve(document.guest)
    check_networks(scope, controllers, guests, document.guest)
    return Topology(
        name=table.name,
        source=origin.source,
        run_dir=scope.run_dir,
        lease_ns=lease_ns,
        hypervisors=hypervisors,
        controllers=controllers,
        guests=guests,
        label=origin.label,
    )
