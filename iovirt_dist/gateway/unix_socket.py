"""UNIX sockets that programs which are not ours connect to: VMMs and NBD clients.

Between our own processes `transport` listens.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from iovirt_dist.errors import EndpointError
from iovirt_dist.topology.endpoint import check_socket_path


def listen_at(path: Path) -> socket.socket:
    """Make a listening stream socket, non-blocking, that only this user may connect to.

    The file of an owner that is gone, as SIGKILL leaves it, is replaced.

    Raises:
        EndpointError: The path is too long or in use, or cannot be made.
    """
    check_socket_path(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _bind(listening, path)
        path.chmod(0o600)
        listening.listen()
    except OSError as error:
        listening.close()
        raise EndpointError(f"cannot listen: {error.strerror}", str(path)) from error
    except EndpointError:
        listening.close()
        raise
    return listening


def _bind(listening: socket.socket, path: Path) -> None:
    try:
        listening.bind(os.fspath(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    else:
        return
    if not path.is_socket() or _is_alive(path):
        raise EndpointError("the path is in use", str(path), "stop who listens there, or choose another path")
    path.unlink(missing_ok=True)
    listening.bind(os.fspath(path))


def _is_alive(path: Path) -> bool:
    """Whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
