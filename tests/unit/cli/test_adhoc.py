"""One guest from options: the topology that is written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.adhoc import AdHocGuest, ended_reason, topology_text
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import MachineSpec, Origin, Topology, topology_from_text


def resolve(guest: AdHocGuest, base: Path) -> Topology:
    """The topology that `iovirt run` would start."""
    return topology_from_text(topology_text(guest, base / "run"), Origin("iovirt run", None, base))


def test_topology_text_takes_any_text_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes and backslashes in options are no TOML syntax; paths are the user's, not the temporary folder's."""
    monkeypatch.chdir(tmp_path)
    line = 'a="b" \\n # c'
    guest = resolve(AdHocGuest(machine="pc", image="x.bin", command_line=line, payload="p"), Path("/base")).guest(
        "guest"
    )
    assert isinstance(guest, MachineSpec)
    assert guest.command_line == line
    assert (guest.image, guest.payload) == (tmp_path / "x.bin", tmp_path / "p")
    assert guest.restart == "never"
    assert guest.disk is None


def test_topology_text_with_disk_has_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk image is made with the size asked for."""
    monkeypatch.chdir(tmp_path)
    topology = resolve(AdHocGuest(machine="pc", image="bundled:guestos", disk="d.img", disk_size="1MiB"), Path("/base"))
    disk = topology.guest("guest").disk
    assert disk is not None
    assert disk.extent.size_bytes == 1 << 20
    assert sorted(topology.controllers) == ["disk0", "tty0"]


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A fresh run directory."""
    made = RunDir(tmp_path)
    made.create()
    return made


def test_ended_reason_of_a_stopped_guest_is_its_own(run_dir: RunDir) -> None:
    """Power off, triple fault: the guest's process knows."""
    StatusWriter(run_dir, "guest", "guest", 1, 0).update(0, state="stopped", reason="triple fault")
    assert ended_reason(run_dir) == "the guest stopped: triple fault"


def test_ended_reason_of_a_failed_process_names_it(run_dir: RunDir) -> None:
    """A controller that cannot start ends the run."""
    rows = {"hv0": {"state": "up", "exit": ""}, "disk0": {"state": "ended", "exit": "exit status 2"}}
    StatusWriter(run_dir, SUPERVISOR, "supervisor", 1, 0).update(0, processes=rows)
    assert ended_reason(run_dir) == "disk0 ended (exit status 2)"


def test_ended_reason_while_it_runs_is_none(run_dir: RunDir) -> None:
    """Between start and first status there is no reason to leave either."""
    with run_dir.locked():
        assert ended_reason(run_dir) is None
    assert ended_reason(run_dir) == "the processes are gone"
