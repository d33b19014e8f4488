"""What ``ps`` tells of each kind of process, before any of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.processes import process_rows, show_processes
from iovirt_dist.topology import Origin, Topology, topology_from_text

TEXT = """
[hypervisor.hv0]
[controller.rng0]
kind = "rng"
[guest.pc]
kind = "machine"
hypervisor = "hv0"
level = "syscall"
image = "x"
[guest.cat]
kind = "program"
hypervisor = "hv0"
image = "x"
[guest.load]
kind = "script"
hypervisor = "hv0"
script = "a:b"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """A guest of each kind."""
    return topology_from_text(TEXT, Origin("t.toml", tmp_path / "t.toml", tmp_path))


def test_rows_name_kind_and_level_of_guests(topology: Topology) -> None:
    """All guests are of the process type guest; what they are inside is told apart."""
    rows = {row["name"]: (row["kind"], row["guest"], row["level"], row["where"]) for row in process_rows(topology, 0)}
    assert rows == {
        "rng0": ("rng", None, None, "sock/rng0"),
        "hv0": ("hypervisor", None, None, "sock/hv0"),
        "pc": ("guest", "machine", "syscall", "on hv0"),
        "cat": ("guest", "program", "syscall", "on hv0"),
        "load": ("guest", "script", "driver", "on hv0"),
    }


def test_table_shows_a_guests_kind(topology: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    """One column for the kind of a process or of a guest."""
    show_processes(topology, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "KIND", "LEVEL", "STATE", "PID", "RST", "UP", "WHERE"]
    assert ["cat", "program", "syscall", "down", "-", "0", "-", "on", "hv0"] in lines
    assert ["rng0", "rng", "-", "down", "-", "0", "-", "sock/rng0"] in lines
