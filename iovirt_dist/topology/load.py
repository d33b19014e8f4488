"""Find, read and check a topology."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.parse import parse_document
from iovirt_dist.topology.resolve import Origin, resolve_topology
from iovirt_dist.topology.scaling import NOT_SCALED, Scaling, read_scaling
from iovirt_dist.topology.specs import Topology, host_folder

HOST_KEY = "IOVIRT_HOST"
"""Environment variable that names the host whose part of the topology this is; absent or empty for all of it."""

ENVIRONMENT_KEY = "IOVIRT_TOPOLOGY"
"""Environment variable that names the topology file; absent or empty for the built-in one."""


def default_text() -> str:
    """Return the built-in topology's TOML text."""
    return resources.files("iovirt_dist.topology").joinpath("default.toml").read_text("utf-8")


def load_topology(path: Path | str | None = None, scaling: Scaling = NOT_SCALED) -> Topology:
    """Read and check a topology file.

    Args:
        path: The file; None for the built-in topology, whose paths are relative to the current folder.
        scaling: What was scaled since the topology came up; tables that the file does not have are left out.

    Returns:
        The checked topology. Guest images may still be missing: see `Topology.missing_images`.

    Raises:
        ConfigError: The file cannot be read, or something in it is wrong; `where` names file and key.
        EndpointError: A socket path is too long.
    """
    if path is None:
        return topology_from_text(default_text(), Origin("built-in topology", None, Path.cwd()), scaling)
    source = Path(path).absolute()
    try:
        text = source.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the topology: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("not valid TOML: the file is not UTF-8 text", str(path)) from None
    return topology_from_text(text, Origin(str(path), source, source.parent), scaling)


def topology_from_text(text: str, origin: Origin, scaling: Scaling = NOT_SCALED) -> Topology:
    """Check a topology's text; raises as `load_topology` does."""
    topology = resolve_topology(parse_document(text, origin.label), origin, scaling)
    return replace(topology, digest=hashlib.sha256(text.encode()).hexdigest())


def host_part(topology: Topology, host: str) -> Topology:
    """Choose a host's part of a topology: the host that is named, or the only one.

    Args:
        topology: All of it.
        host: Name of the host, empty if none was named.

    Returns:
        The part; all of it if the topology names no hosts, or several and none was named.

    Raises:
        ConfigError: There is no such host.
    """
    chosen = host or (next(iter(topology.hosts)) if len(topology.hosts) == 1 else "")
    return topology.at(chosen) if chosen else topology


def load_running(path: Path | str | None, host: str) -> Topology:
    """Load a host's part of a topology as it is now, scaled as `iovirt scale` has said since it came up.

    Args:
        path: As of `load_topology`.
        host: As of `host_part`.

    Raises:
        ConfigError: As of `load_topology` and `host_part`.
        EndpointError: As of `load_topology`.
    """
    topology = host_part(load_topology(path), host)
    folders = [topology.run_dir]
    if not topology.host:  # of several hosts those that are on this machine
        folders += [host_folder(topology.run_dir, name) for name in topology.hosts]
    scaling = max(map(read_scaling, folders), key=lambda found: found.revision)
    return host_part(load_topology(path, scaling), host) if scaling.revision else topology


def topology_from_environment(environ: Mapping[str, str]) -> Topology:
    """Load what IOVIRT_TOPOLOGY names, or the built-in topology, the part of IOVIRT_HOST; raises as `load_running`."""
    return load_running(environ.get(ENVIRONMENT_KEY) or None, environ.get(HOST_KEY, ""))
