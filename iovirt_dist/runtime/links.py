"""Opens the sockets of a topology's processes, with the keys that belong to them.

What is on one host talks over ipc, whose folder keeps others out. Over tcp, a topology with keys has CURVE at both
ends: each proves who it is before anything is said, and only those are let in whose guests may need it.
"""

from __future__ import annotations

from functools import partial

from iovirt_dist.topology.keys import clients_of, key_of
from iovirt_dist.topology.specs import Topology
from iovirt_dist.transport.curve import Security, load_security
from iovirt_dist.transport.port import key_fits
from iovirt_dist.transport.zeromq import ZeromqPort, dial, listen
from iovirt_dist.wire.acceptor import Acceptor


def listen_as(topology: Topology, name: str, acceptor: Acceptor) -> ZeromqPort:
    """Listen at the endpoint of a hypervisor or controller.

    Args:
        topology: Where everything is.
        name: Which process, or device of a driver domain.
        acceptor: Its sessions: each name is for whoever has its key.

    Raises:
        EndpointError: The endpoint cannot be bound.
        ConfigError: A key is missing.
    """
    port = listen(_endpoint(topology, name), _server_security(topology, name))
    acceptor.authenticate(key_fits(port, partial(key_of, topology)))
    return port


def dial_as(topology: Topology, name: str, server: str) -> ZeromqPort:
    """Dial a hypervisor or controller.

    Args:
        topology: Where everything is.
        name: Who dials.
        server: Whom.

    Raises:
        EndpointError: The endpoint cannot be dialled.
        ConfigError: A key is missing.
    """
    endpoint, key = _endpoint(topology, server), key_of(topology, server)
    security = None
    if topology.keys is not None and _needs_keys(endpoint):
        security = load_security(topology.keys, key_of(topology, name), [key])
    return dial(endpoint, security, key)


def follow(topology: Topology, name: str, port: ZeromqPort, acceptor: Acceptor) -> None:
    """Let those connect to a listening process that may according to a topology that was scaled, as `listen_as` does.

    Args:
        topology: Where everything is now.
        name: Who listens.
        port: Its port, made by `listen_as`.
        acceptor: Its sessions.

    Raises:
        ConfigError: A key is missing; nothing is changed then.
    """
    security = _server_security(topology, name)
    if security is not None:
        port.admit(security)
    acceptor.authenticate(key_fits(port, partial(key_of, topology)))


def _server_security(topology: Topology, name: str) -> Security | None:
    if topology.keys is None or not _needs_keys(_endpoint(topology, name)):
        return None
    return load_security(topology.keys, key_of(topology, name), clients_of(topology, name))


def _needs_keys(endpoint: str) -> bool:
    return endpoint.startswith("tcp://")


def _endpoint(topology: Topology, name: str) -> str:
    """Where a process listens; KeyError if it does not."""
    if name in topology.hypervisors:
        return topology.hypervisor(name).endpoint
    return topology.controller(name).endpoint
