"""Topologies for tests: any source becomes a file of its own, in a run directory of its own, on free endpoints."""

from __future__ import annotations

import json
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from iovirt_dist.topology import Topology, default_text, load_topology

Tables: TypeAlias = Mapping[str, Any]
Source: TypeAlias = str | Path | Tables | None
"""TOML text, a file, the tables of a document, or None for the built-in topology."""

_IMAGE_KEYS = ("image", "payload", "script", "kernel", "initrd")
_BUNDLED = "bundled:"


def write_topology(source: Source, folder: Path, overrides: Tables) -> Topology:
    """Write the topology file of a test and load it.

    The run directory is `folder`; tcp endpoints get free ports. Images that a topology *file* names relative to itself
    are used where they are; those of a text, of tables and of the built-in topology are created in `folder`.

    Args:
        source: What to start.
        folder: Empty folder with a short path, as socket paths are bounded.
        overrides: Tables that are merged into the document, key by key.

    Returns:
        The checked topology.

    Raises:
        ConfigError: The topology is wrong; `where` names the written file and the key.
    """
    tables = merged(read_tables(source), overrides)
    tables = merged(tables, {"topology": {"run_dir": str(folder)}})
    base = source.absolute().parent if isinstance(source, Path) else folder
    for section in ("controller", "guest"):
        for entry in tables.get(section, {}).values():
            _place_images(entry, base, folder, named=isinstance(source, Path))
    for section in ("controller", "hypervisor"):
        for entry in tables.get(section, {}).values():
            if str(entry.get("endpoint", "")).startswith("tcp://"):
                entry["endpoint"] = f"tcp://127.0.0.1:{free_port()}"
    path = folder / "topology.toml"
    path.write_text(to_toml(tables))
    return load_topology(path)


def read_tables(source: Source) -> dict[str, Any]:
    """Return the tables of a source; raises `tomllib.TOMLDecodeError` or `OSError` as they come."""
    if source is None:
        return tomllib.loads(default_text())
    if isinstance(source, Path):
        return tomllib.loads(source.read_text("utf-8"))
    if isinstance(source, str):
        return tomllib.loads(source)
    return merged({}, source)


def merged(tables: Tables, overrides: Tables) -> dict[str, Any]:
    """Return a deep copy of `tables` with `overrides` laid over it, table by table."""
    result: dict[str, Any] = {
        key: merged(value, {}) if isinstance(value, Mapping) else value for key, value in tables.items()
    }
    for key, value in overrides.items():
        old = result.get(key)
        result[key] = merged(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return result


def to_toml(tables: Tables, prefix: str = "") -> str:
    """Write tables as TOML text: strings, numbers, booleans, lists of them, and tables."""
    lines = [
        f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in tables.items() if not isinstance(value, Mapping)
    ]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{json.dumps(key)}"
            lines.append(f"\n[{name}]\n{to_toml(value, f'{name}.')}")
    return "".join(lines)


def free_port() -> int:
    """Return a TCP port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _place_images(entry: dict[str, Any], base: Path, folder: Path, *, named: bool) -> None:
    """Make the paths of images, scripts and a program's files absolute."""

    def place(written: str) -> str:
        relative = written and not written.startswith(_BUNDLED) and not Path(written).is_absolute()
        if not relative:
            return written
        return str(base / written if named else folder / Path(written).name)

    for key in _IMAGE_KEYS:
        written = entry.get(key, "")
        is_module = key == "script" and not written.rpartition(":")[0].endswith(".py")
        if written and not is_module:
            entry[key] = place(written)
    for path, source in entry.get("files", {}).items():
        entry["files"][path] = place(source)
