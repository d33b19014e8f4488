"""What all checks of a topology share: where a key is, names and endpoints that are taken, paths and quantities."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypedDict, TypeVar

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import HostName, ProcessName
from iovirt_dist.topology.endpoint import resolve_endpoint
from iovirt_dist.topology.parse import join_key
from iovirt_dist.topology.specs import host_folder

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A process, extent or terminal name: safe as a file name and as a word of a log line."""

_T = TypeVar("_T")


class Origin(NamedTuple):
    """Where a topology comes from.

    Attributes:
        label: For messages: the file's name as given, or "built-in topology".
        source: Absolute path of the file; None for the built-in default.
        base: Absolute folder that relative paths start from.
    """

    label: str
    source: Path | None
    base: Path


class ControllerAttributes(TypedDict):
    """The attributes of every controller's spec."""

    name: ProcessName
    endpoint: str
    host: HostName
    driver: str
    arbitration: Mapping[str, int]


class Scope:
    """One topology while it is checked.

    Args:
        origin: Where it comes from.
        run_dir: The run directory as written.
    """

    def __init__(self, origin: Origin, run_dir: str) -> None:
        self.origin = origin
        self.run_dir = self.path(run_dir)
        self._names: dict[str, str] = {}
        self._endpoints: dict[tuple[str, str], str] = {}

    def where(self, *keys: str) -> str:
        """Return file and dotted key for a message."""
        path = ""
        for key in keys:
            path = join_key(path, key)
        return f"{self.origin.label}: {path}"

    def path(self, written: str) -> Path:
        """Return an absolute path, normalised, as every byte of a socket path counts."""
        return Path(os.path.normpath(Path(self.origin.base, Path(written).expanduser())))

    def quantity(self, written: _T, parse: Callable[[_T], int], where: str) -> int:
        """Return a size in bytes or a duration in ns.

        Raises:
            ConfigError: It is none.
        """
        try:
            return parse(written)
        except ValueError as error:
            shown = f'"{written}"' if isinstance(written, str) else str(written)
            raise ConfigError(f"{error}, got {shown}", where) from None

    def claim_name(self, name: str, where: str) -> None:
        """Take a process name.

        Raises:
            ConfigError: It is no name, or taken.
        """
        if not NAME.fullmatch(name):
            fix = "use letters, digits, '_', '.' and '-', a letter or digit first, at most 63"
            raise ConfigError(f"'{name}' is no name", where, fix)
        if name in self._names:
            raise ConfigError(f"the name '{name}' is taken by {self._names[name]}", where, "rename one of them")
        self._names[name] = where.removeprefix(f"{self.origin.label}: ")

    def endpoint(self, written: str, table: str, name: str, host: str = "") -> str:
        """Take the name and the endpoint of a process that listens; returns the full address.

        Raises:
            ConfigError: Name or endpoint is wrong or taken.
            EndpointError: The socket path is too long.
        """
        where = self.where(table, name, "endpoint")
        self.claim_name(name, self.where(table, name))
        socket = host_folder(self.run_dir, host) / "sock" / name
        return self.address(resolve_endpoint(written, socket, self.origin.base, where), name, table, name, "endpoint")

    def address(self, endpoint: str, name: str, *keys: str, host: str = "") -> str:
        """Take an address, for which `name` is said to whoever wants it, too; returns it.

        Args:
            endpoint: The address.
            name: Whose it is.
            keys: Where it is written.
            host: The host that alone knows the address, so that others may have the same; empty for all of them.

        Raises:
            ConfigError: It is taken, or no address of a socket.
        """
        where = self.where(*keys)
        resolve_endpoint(endpoint, self.run_dir, self.origin.base, where)
        owner = self._endpoints.get(("", endpoint)) or self._endpoints.get((host, endpoint))
        if owner is not None:
            raise ConfigError(f"{endpoint} is the endpoint of '{owner}' too", where, "change one")
        self._endpoints[host, endpoint] = name
        return endpoint
