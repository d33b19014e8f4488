"""What ``ps`` tells of each kind of process, before any of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.processes import process_rows, seen_rows, show_processes
from iovirt_dist.runtime.remote_view import HostsView
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.runtime.view import View
from iovirt_dist.topology import Origin, Topology, topology_from_text
from tests.unit.cli.top_support import HOSTS

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
[guest.linux]
kind = "vm"
vmm = "uml"
hypervisor = "hv0"
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
        "linux": ("guest", "vm", "driver", "on hv0"),
        "linux.vmm": ("vmm", None, None, "uml of linux"),
    }


def test_table_shows_a_guests_kind(topology: Topology, capsys: pytest.CaptureFixture[str]) -> None:
    """One column for the kind of a process or of a guest."""
    show_processes(topology, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "KIND", "LEVEL", "STATE", "PID", "RST", "UP", "WHERE"]
    assert ["cat", "program", "syscall", "down", "-", "0", "-", "on", "hv0"] in lines
    assert ["rng0", "rng", "-", "down", "-", "0", "-", "sock/rng0"] in lines


def test_rows_tell_hosts_and_what_driver_domains_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device of a driver domain has no process of its own."""
    topology = topology_from_text(HOSTS, Origin("t.toml", tmp_path / "t.toml", tmp_path)).at("a")

    show_processes(topology, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {row["name"]: (row["host"], row["devices"]) for row in process_rows(topology, 0)}

    assert lines[0] == ["NAME", "KIND", "LEVEL", "STATE", "PID", "RST", "UP", "HOST", "WHERE"]
    assert ["dom0", "driver", "domain", "-", "down", "-", "0", "-", "a", "serves", "disk0"] in lines
    assert rows == {"dom0": ("a", ["disk0"]), "hv0": ("a", None)}


def test_row_tells_state_restarts_and_everything_that_the_process_told(topology: Topology) -> None:
    """As its status and its supervisor say, if it is alive."""
    told = ProcessStatus(name="hv0", pid=7, state="running", epoch=3, started_ns=0, content={"rejects": {}})
    view = View({"hv0": told, "rng0": told}, frozenset({"hv0"}), {"hv0": {"restarts": 2}, "cat": {"pid": 9}})

    rows = {row["name"]: row for row in process_rows(topology, 5_000_000_000, view)}

    assert [rows["hv0"][key] for key in ("state", "pid", "epoch", "restarts", "uptime_s")] == ["running", 7, 3, 2, 5.0]
    assert rows["hv0"]["status"] == {"rejects": {}}
    assert (rows["rng0"]["state"], rows["rng0"]["reason"], rows["rng0"]["status"]) == ("dead", "pid 7 is gone", {})
    assert (rows["cat"]["state"], rows["cat"]["pid"]) == ("starting", 9)


@pytest.mark.parametrize("state", ["backoff", "ended", "stopped"])
def test_row_of_a_process_that_ended_tells_how(topology: Topology, state: str) -> None:
    """The supervisor knows; one that does not say how is believed, too."""
    rows = process_rows(topology, 0, View({}, frozenset(), {"hv0": {"state": state, "exit": "status 1"}}))
    mute = process_rows(topology, 0, View({}, frozenset(), {"hv0": {"state": state}}))
    assert [(row["state"], row["reason"]) for row in rows if row["name"] == "hv0"] == [(state, "status 1")]
    assert [(row["state"], row["reason"]) for row in mute if row["name"] == "hv0"] == [(state, "")]


def test_processes_of_a_host_that_tells_nothing_are_unknown(tmp_path: Path) -> None:
    """They may run, or not."""
    topology = topology_from_text(HOSTS, Origin("t.toml", tmp_path / "t.toml", tmp_path))
    rows = seen_rows(HostsView(topology, View(), {"b": "does not answer"}), 0)
    assert {row["name"]: row["state"] for row in rows} == {"dom0": "down", "hv0": "down", "hv1": "unknown"}
