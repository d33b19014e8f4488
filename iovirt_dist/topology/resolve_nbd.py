"""What the table of an NBD gateway says besides its disk: where it listens, and what clients call the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypedDict

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import schema
from iovirt_dist.topology.endpoint import check_socket_path
from iovirt_dist.topology.replicas import Replica
from iovirt_dist.topology.scope import Scope
from iovirt_dist.topology.specs import host_folder

MAX_EXPORT_BYTES: Final = 256
"""Longest export name that every client takes (NetworkBlockDevice/nbd, doc/proto.md, "Conventions")."""

_MAX_PORT: Final = 65535


class Listening(TypedDict):
    """The attributes that only `NbdSpec` has."""

    socket: Path | None
    port: int
    export: str


def resolve_listening(scope: Scope, replica: Replica, table: schema.NbdTable, host: str) -> Listening:
    """Check where a gateway listens, and take that address.

    Args:
        scope: The topology.
        replica: Which guest.
        table: As written.
        host: Where its hypervisor is; empty if the topology names no hosts.

    Raises:
        ConfigError: Socket and port are both given, or taken, the socket's path is too long, or the export's name is
            too long or unprintable.
        EndpointError: The path of the run directory is too long for a socket in it.
    """
    group, name = replica.group, replica.name
    export = replica.fill(table.export) or name
    if len(export.encode()) > MAX_EXPORT_BYTES or not export.isprintable():
        where = scope.where("guest", group, "export")
        raise ConfigError(f"an export's name is printable and has at most {MAX_EXPORT_BYTES} bytes", where)
    if table.port and table.socket:
        raise ConfigError("a gateway has a socket or a port", scope.where("guest", group, "port"), "remove one of them")
    if table.port:
        port = table.port + replica.number - 1
        if port > _MAX_PORT:
            raise ConfigError(f"replica {replica.number} would have port {port}", scope.where("guest", group, "port"))
        scope.address(f"tcp://127.0.0.1:{port}", name, "guest", group, "port", host=host)
        return Listening(socket=None, port=port, export=export)
    own = host_folder(scope.run_dir, host) / f"{name}.nbd"
    where = scope.where("guest", group, "socket") if table.socket else ""
    socket = check_socket_path(scope.path(replica.fill(table.socket)) if table.socket else own, where)
    scope.address(f"ipc://{socket}", name, "guest", group, "socket", host=host)
    return Listening(socket=socket, port=0, export=export)
