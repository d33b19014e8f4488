"""What the doctor finds on a good and on a bad machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli import doctor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import Topology, default_text, load_topology
from iovirt_dist.topology.load import topology_from_text
from iovirt_dist.topology.resolve import Origin


@pytest.fixture
def topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Topology:
    """The built-in topology in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return load_topology()


def test_examine_here_finds_nothing_bad(topology: Topology) -> None:
    """Where the tests run, topologies run."""
    assert [finding for finding in doctor.examine(topology) if finding.verdict == "bad"] == []


def test_firmware_absent_names_the_package(tmp_path: Path) -> None:
    """Optional: a note, not an error."""
    (finding,) = doctor.check_firmware({f"{tmp_path}/fw.bin": ("fw-pkg", "FW tests")})
    assert finding == ("firmware", "note", f"{tmp_path}/fw.bin is absent: no FW tests", "apt-get install fw-pkg")


def test_vmms_that_are_absent_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package once, though that of User-Mode Linux has VMM and kernel."""
    for name in ("vmm_program", "modules_folder", "newest_kernel"):
        monkeypatch.setattr(doctor, name, lambda *_: None)

    qemu, uml = doctor.check_vmms()

    assert (qemu.verdict, qemu.fix) == ("note", "apt-get install qemu-system-x86 linux-image-cloud-amd64")
    assert (uml.detail, uml.fix) == (
        "no guests on uml: user-mode-linux is not installed",
        "apt-get install user-mode-linux",
    )


def test_vmms_that_are_there_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder of the drivers."""
    for name in ("vmm_program", "modules_folder", "newest_kernel"):
        monkeypatch.setattr(doctor, name, lambda *_, name=name: Path(f"/{name}"))

    _, uml = doctor.check_vmms()

    assert uml == ("vmm", "ok", "uml: /vmm_program, drivers in /modules_folder", "")


def test_run_dir_with_leftovers_says_how_to_remove_them(topology: Topology) -> None:
    """After SIGKILL of everything."""
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    run_dir.socket("hv0").touch()
    finding = list(doctor.check_run_dir(topology))[-1]
    assert (finding.verdict, finding.detail) == ("note", "left over from a killed topology: sock/hv0")


def test_run_dir_with_orphans_names_them(topology: Topology) -> None:
    """Processes without a supervisor may be honcho's, or forgotten."""
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    StatusWriter(run_dir, "hv0", "hypervisor", 1, 0).update(0)
    finding = list(doctor.check_run_dir(topology))[-1]
    assert finding.detail.startswith("running without a supervisor (honcho?): hv0 (pid ")


def test_run_dir_in_use_is_fine(topology: Topology) -> None:
    """Sockets of a topology that is up are no leftovers."""
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    run_dir.socket("hv0").touch()
    with run_dir.locked():
        assert [finding.verdict for finding in doctor.check_run_dir(topology)] == ["ok", "ok"]


def test_requirements_of_a_source_folder_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An editable installation's metadata may name what is no dependency any more."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "iovirt-dist"\ndependencies = ["a>=1"]\n')
    monkeypatch.setattr("iovirt_dist.__file__", str(tmp_path / "iovirt_dist" / "__init__.py"))
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["stale"])
    assert doctor.requirements() == ["a>=1"]


def test_package_absent_is_bad_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that cannot be imported comes with the command that installs it."""
    monkeypatch.setattr("iovirt_dist.__file__", "/nowhere/iovirt_dist/__init__.py")
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda _: ["absent-package>=1; python_version>'3'", "x; extra == 'y'"]
    )
    (finding,) = doctor.check_packages()
    assert finding.verdict == "bad"
    assert finding.fix == "pip install 'absent-package>=1'"


def with_uplink(topology: Topology, name: str) -> Topology:
    """The topology with a switch more, of which this is the uplink."""
    text = default_text() + f'\n[controller.sw0]\nkind = "net"\nuplink = "{name}"\n'
    return topology_from_text(text, Origin("test", None, topology.run_dir.parent))


@pytest.mark.parametrize(
    ("uplink", "verdict", "detail"),
    [
        ("", "note", "no TAP interface can be made: not permitted"),
        ("lo", "ok", "lo is there; no others can be made: not permitted"),
        ("absent0", "bad", "no interface absent0: not permitted"),
    ],
)
def test_uplink_where_no_tap_can_be_made(
    topology: Topology, monkeypatch: pytest.MonkeyPatch, uplink: str, verdict: str, detail: str
) -> None:
    """It matters to a topology that has one which is not there."""
    monkeypatch.setattr(doctor, "may_make_taps", lambda: PermissionError(1, "not permitted"))
    (finding,) = doctor.check_tap(with_uplink(topology, uplink))
    assert (finding.verdict, finding.detail) == (verdict, detail)


def test_uplink_where_taps_can_be_made(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else matters then."""
    monkeypatch.setattr(doctor, "may_make_taps", lambda: None)
    assert list(doctor.check_tap(topology)) == [("uplink", "ok", "TAP interfaces can be made", "")]
