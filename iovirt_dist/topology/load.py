"""Find, read and check a topology."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.parse import parse_document
from iovirt_dist.topology.resolve import Origin, resolve_topology
from iovirt_dist.topology.specs import Topology

HOST_KEY = "IOVIRT_HOST"
"""Environment variable that names the host whose part of the topology this is; absent or empty for all of it."""

ENVIRONMENT_KEY = "IOVIRT_TOPOLOGY"
"""Environment variable that names the topology file; absent or empty for the built-in one."""


def default_text() -> str:
    """Return the built-in topology's TOML text."""
    return resources.files("iovirt_dist.topology").joinpath("default.toml").read_text("utf-8")


def load_topology(path: Path | str | None = None, counts: Mapping[str, int] | None = None) -> Topology:
    """Read and check a topology file.

    Args:
        path: The file; None for the built-in topology, whose paths are relative to the current folder.
        counts: Replicas of guest tables, by name, where they are not what the file says.

    Returns:
        The checked topology. Guest images may still be missing: see `Topology.missing_images`.

    Raises:
        ConfigError: The file cannot be read, or something in it is wrong; `where` names file and key.
        EndpointError: A socket path is too long.
    """
    if path is None:
        return topology_from_text(default_text(), Origin("built-in topology", None, Path.cwd()), counts)
    source = Path(path).absolute()
    try:
        text = source.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the topology: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("not valid TOML: the file is not UTF-8 text", str(path)) from None
    return topology_from_text(text, Origin(str(path), source, source.parent), counts)


def topology_from_text(text: str, origin: Origin, counts: Mapping[str, int] | None = None) -> Topology:
    """Check a topology's text; raises as `load_topology` does."""
    return resolve_topology(parse_document(text, origin.label), origin, counts or {})


def topology_from_environment(environ: Mapping[str, str]) -> Topology:
    """Load what IOVIRT_TOPOLOGY names, or the built-in topology, the part of IOVIRT_HOST; raises as `load_topology`."""
    topology = load_topology(environ.get(ENVIRONMENT_KEY) or None)
    host = environ.get(HOST_KEY)
    return topology.at(host) if host else topology
