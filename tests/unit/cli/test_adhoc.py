"""One guest from options: the topology that is written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.cli.adhoc import ended_reason, guest_status, topology_text
from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.errors import ConfigError
from iovirt_dist.platform.level import Level
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import MachineSpec, Origin, ProgramSpec, ScriptSpec, Topology, VmSpec, topology_from_text


def resolve(guest: AdHocGuest, base: Path) -> Topology:
    """The topology that `iovirt run` would start."""
    return topology_from_text(topology_text(guest, base / "run"), Origin("iovirt run", None, base))


def test_topology_text_takes_any_text_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes and backslashes in options are no TOML syntax; paths are the user's, not the temporary folder's."""
    monkeypatch.chdir(tmp_path)
    line = 'a="b" \\n # c'
    guest = resolve(AdHocGuest(image="x.bin", command_line=line, payload="p"), Path("/base")).guest("guest")
    assert isinstance(guest, MachineSpec)
    assert guest.command_line == line
    assert (guest.image, guest.payload) == (tmp_path / "x.bin", tmp_path / "p")
    assert guest.restart == "never"
    assert guest.disk is None


def test_topology_text_with_disk_has_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk image is made with the size asked for."""
    monkeypatch.chdir(tmp_path)
    topology = resolve(AdHocGuest(disk="d.img", disk_size="1MiB"), Path("/base"))
    disk = topology.guest("guest").disk
    assert disk is not None
    assert disk.extent.size_bytes == 1 << 20
    assert sorted(topology.controllers) == ["disk0", "tty0"]


def test_topology_text_of_a_program_has_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own name first, then the command; volumes and environment by name."""
    monkeypatch.chdir(tmp_path)
    guest = AdHocGuest(
        program="bin/busybox",
        arguments=("echo", "-n", 'a "b"\n'),
        environment=("A=b=c",),
        volumes=("x:y:/data",),
        rng=True,
        memory="8MiB",
    )
    topology = resolve(guest, Path("/base"))
    spec = topology.guest("guest")
    assert isinstance(spec, ProgramSpec)
    assert spec.image == tmp_path / "bin/busybox"
    assert spec.arguments == ("busybox", "echo", "-n", 'a "b"\n')
    assert spec.environment == ("A=b=c",)
    assert spec.files == {"/data": tmp_path / "x:y"}
    assert (spec.memory_bytes, spec.rng) == (8 << 20, ("rng0",))


def test_topology_text_of_a_script_has_values_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter is what TOML makes of it, else text; its terminal is the virtio console."""
    monkeypatch.chdir(tmp_path)
    parameters = ("depth=64", "mix=[1, 0.5]", "pattern=random", 'name="x"', "empty=", "two=1\nb = 2")
    topology = resolve(AdHocGuest(script="load.py:main", parameters=parameters), Path("/base"))
    spec = topology.guest("guest")
    assert isinstance(spec, ScriptSpec)
    assert (spec.file, spec.function) == (tmp_path / "load.py", "main")
    assert spec.parameters == {
        "depth": 64,
        "mix": [1, 0.5],
        "pattern": "random",
        "name": "x",
        "empty": "",
        "two": "1\nb = 2",
    }
    assert topology.terminal("guest").terminal == "guest.hvc0"


def test_topology_text_of_a_script_in_a_module_is_as_written() -> None:
    """A module's name is no path."""
    spec = resolve(AdHocGuest(script="package.module:run"), Path("/base")).guest("guest")
    assert isinstance(spec, ScriptSpec)
    assert spec.module == "package.module"


def test_topology_text_level_is_the_machines(tmp_path: Path) -> None:
    """The bundled image at another level than its machine's own."""
    spec = resolve(AdHocGuest(level="driver"), Path("/base")).guest("guest")
    assert isinstance(spec, MachineSpec)
    assert (spec.level, spec.image_name) == (Level.DRIVER, "bundled:guestos")


def test_topology_text_of_a_virtual_machine_has_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are the user's; a switch has a host to talk to."""
    monkeypatch.chdir(tmp_path)
    guest = AdHocGuest(qemu=True, kernel="k", initrd="i", append="a=b", cpus=2, net=True, rng=True, memory="1GiB")
    topology = resolve(guest, Path("/base"))
    spec = topology.guest("guest")
    assert isinstance(spec, VmSpec)
    assert (spec.vmm, spec.kernel, spec.initrd) == ("qemu", tmp_path / "k", tmp_path / "i")
    assert (spec.command_line, spec.cpus, spec.memory_bytes) == ("a=b", 2, 1 << 30)
    assert spec.devices == ("net", "rng")
    assert spec.console == ("tty0", "guest")
    assert topology.names("vmm") == ["guest.vmm"]


def test_topology_text_of_an_external_virtual_machine_has_its_devices_only() -> None:
    """Its console is where somebody starts it."""
    topology = resolve(AdHocGuest(uml=True, kernel="k", append="a=b", external=True), Path("/base"))
    spec = topology.guest("guest")
    assert isinstance(spec, VmSpec)
    assert (spec.vmm, spec.kernel, spec.command_line, spec.console) == ("external", None, "", None)
    assert topology.names("vmm") == []


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        (AdHocGuest(image="a", program="b"), "iovirt run: --image and --program are two guests; run one of them"),
        (AdHocGuest(qemu=True, uml=True), "iovirt run: --qemu and --uml are two guests; run one of them"),
        (AdHocGuest(uml=True, image="a"), "iovirt run: --image and --uml are two guests; run one of them"),
        (AdHocGuest(uml=True, payload="a"), "iovirt run: --payload is for a machine, not for a vm"),
        (AdHocGuest(kernel="k"), "iovirt run: --kernel is for a vm, not for a machine"),
        (AdHocGuest(program="b", net=True), "iovirt run: --net is for a vm, not for a program"),
        (AdHocGuest(arguments=("x",)), "iovirt run: a machine takes no arguments; name a program with --program FILE"),
        (AdHocGuest(program="b", payload="x"), "iovirt run: --payload is for a machine, not for a program"),
        (AdHocGuest(program="b", image_format="elf"), "iovirt run: --format is for a machine, not for a program"),
        (AdHocGuest(script="b:c", environment=("A=b",)), "iovirt run: --env is for a program, not for a script"),
        (AdHocGuest(parameters=("a=1",)), "iovirt run: --parameter is for a script, not for a machine"),
        (AdHocGuest(program="b", environment=("A",)), 'iovirt run: --env: expected NAME=VALUE, got "A"'),
        (AdHocGuest(program="b", volumes=("/a",)), 'iovirt run: --volume: expected HERE:THERE, got "/a"'),
        (AdHocGuest(script="b:c", parameters=("=1",)), 'iovirt run: --parameter: expected NAME=VALUE, got "=1"'),
    ],
)
def test_options_that_do_not_go_together_are_one_line(guest: AdHocGuest, message: str) -> None:
    """The option is named as it is written."""
    with pytest.raises(ConfigError) as caught:
        topology_text(guest, Path("/base"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        ("running", "", 0),
        ("stopped", "powered off by test device", 0),
        ("stopped", "triple fault", 1),
        ("stopped", "script ended", 0),
        ("stopped", "script failed: ValueError: x (load.py:3)", 1),
        ("stopped", "exited with status 0", 0),
        ("stopped", "exited with status 3", 3),
        ("stopped", "killed by signal 11 at 0x0: unmapped", 139),
    ],
)
def test_guest_status_is_the_guests_own(run_dir: RunDir, state: str, reason: str, status: int) -> None:
    """As a shell would have it."""
    StatusWriter(run_dir, "guest", "guest", 1, 0).update(0, state=state, reason=reason)
    assert guest_status(run_dir) == status


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


def test_ended_reason_of_a_virtual_machine_is_its_vmms(run_dir: RunDir) -> None:
    """Its gateway goes on, for who may start another one."""
    StatusWriter(run_dir, "guest", "guest", 1, 0).update(0, state="running", reason="")
    StatusWriter(run_dir, "guest.vmm", "vmm", 1, 0).update(0, state="stopped", reason="powered off")
    assert ended_reason(run_dir) == "the guest stopped: powered off"


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
