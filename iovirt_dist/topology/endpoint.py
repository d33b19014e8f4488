"""Socket addresses: where a process listens, and whether the operating system can take the address."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError, EndpointError

MAX_SOCKET_PATH_BYTES: Final = 107
"""Longest path of a UNIX socket: ``sun_path`` has 108 bytes with the final NUL, see unix(7)."""

_TCP: Final = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.*-]+):(?P<port>[0-9]{1,5})")


def check_socket_path(path: Path, where: str = "") -> Path:
    """Return `path` if a UNIX socket can be bound to it.

    Args:
        path: The socket's.
        where: File and key, if the user wrote the path; else it follows from the run directory.

    Raises:
        ConfigError: The path that the user wrote has more than 107 bytes.
        EndpointError: The path that follows from the run directory has.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        what = f"socket path has {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}"
        shorter = f"path is at least {length - MAX_SOCKET_PATH_BYTES} bytes shorter"
        if where:
            raise ConfigError(what, where, f"choose one whose {shorter}")
        raise EndpointError(what, str(path), f"set topology.run_dir to a folder whose {shorter}")
    return path


def resolve_endpoint(written: str, default_path: Path, base: Path, where: str) -> str:
    """Turn the ``endpoint`` key into a full address.

    Args:
        written: ``ipc://PATH``, ``tcp://HOST:PORT`` or empty.
        default_path: Socket path when `written` is empty; absolute.
        base: Folder that a relative ipc path starts from; absolute.
        where: File and key for messages.

    Returns:
        ``ipc:///absolute/path`` or ``tcp://host:port``.

    Raises:
        ConfigError: Neither ipc nor tcp, no such port, or the path is too long.
        EndpointError: The default path is too long.
    """
    if not written:
        return f"ipc://{check_socket_path(default_path)}"
    if written.startswith("ipc://") and len(written) > len("ipc://"):
        return f"ipc://{check_socket_path(base / written.removeprefix('ipc://'), where)}"
    match = _TCP.fullmatch(written)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(f'expected "ipc://PATH" or "tcp://HOST:PORT", got "{written}"', where)
    return written
