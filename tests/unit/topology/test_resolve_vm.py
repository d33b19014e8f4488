"""Guests of kind ``vm``: defaults, what each VMM refuses, their sockets, and the processes of their VMMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, EndpointError
from iovirt_dist.platform.level import Level
from iovirt_dist.topology import Origin, Topology, VmmSpec, VmSpec, topology_from_text
from iovirt_dist.topology.vm_specs import serial_socket, vm_socket

HEAD = """
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[controller.rng0]
kind = "rng"
[controller.net0]
kind = "net"
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
"""
VM = '[guest.a]\nkind = "vm"\nhypervisor = "hv0"\n'
QEMU = VM + 'vmm = "qemu"\n'
UML = VM + 'vmm = "uml"\n'
EXTERNAL = VM + 'vmm = "external"\n'


def resolve(text: str, base: Path = Path("/base")) -> Topology:
    """Check `text` as if it were t.toml in `base`."""
    return topology_from_text(HEAD + text, Origin("t.toml", base / "t.toml", base))


def vm(text: str, base: Path = Path("/base")) -> VmSpec:
    """The virtual machine of `text`."""
    guest = resolve(text, base).guest("a")
    assert isinstance(guest, VmSpec)
    return guest


def test_vm_has_these_defaults() -> None:
    """Nothing but a VMM and a hypervisor is said."""
    guest = vm(QEMU)

    assert (guest.guest_kind, guest.level, guest.machine) == ("vm", Level.DRIVER, "vm")
    assert (guest.memory_bytes, guest.cpus, guest.queues) == (256 << 20, 1, 1)
    assert (guest.kernel, guest.initrd, guest.command_line, guest.arguments) == (None, None, "", ())
    assert guest.devices == ()


def test_vm_has_what_was_written() -> None:
    """Paths are relative to the topology file's folder."""
    guest = vm(
        QEMU + 'memory = "1GiB"\ncpus = 4\nqueues = 2\nkernel = "k/vmlinuz"\ninitrd = "i.cpio"\n'
        'command_line = "quiet"\narguments = ["-s"]\n'
        'devices = { disk = "disk0", console = "tty0", rng = "rng0", net = "net0", mac = "02:00:00:00:00:07" }\n'
        "qos.disk.weight = 3\n"
    )

    assert (guest.memory_bytes, guest.cpus, guest.queues) == (1 << 30, 4, 2)
    assert (guest.kernel, guest.initrd) == (Path("/base/k/vmlinuz"), Path("/base/i.cpio"))
    assert (guest.command_line, guest.arguments) == ("quiet", ("-s",))
    assert guest.devices == ("disk", "net", "rng")
    assert guest.net is not None
    assert guest.net.mac == bytes.fromhex("020000000007")
    assert guest.qos["disk"].weight == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VM + 'vmm = "xen"\n', 't.toml: guest.a.vmm: expected "qemu", "uml" or "external", got "xen"'),
        (VM, "t.toml: guest.a: key 'vmm' is missing"),
        (QEMU + "cpus = 0\n", "t.toml: guest.a.cpus: expected an integer from 1 to 64, got 0"),
        (QEMU + "queues = 9\n", "t.toml: guest.a.queues: expected an integer from 1 to 8, got 9"),
        (QEMU + 'memory = "31MiB"\n', "t.toml: guest.a.memory: a vm takes 32MiB to 64GiB in steps of 1MiB, got 31MiB"),
        (
            QEMU + 'devices.virtio_console = "tty0"\n',
            "t.toml: guest.a.devices.virtio_console: QEMU has no vhost-user console; remove devices.virtio_console",
        ),
        (
            UML + 'devices.rng = "rng0"\n',
            "t.toml: guest.a.devices.rng: Debian's User-Mode Linux has no virtio-rng driver; remove devices.rng",
        ),
        (UML + "cpus = 2\n", "t.toml: guest.a.cpus: User-Mode Linux has one CPU, got cpus = 2; remove it"),
        (UML + "queues = 2\n", "t.toml: guest.a.queues: User-Mode Linux has one CPU, got queues = 2; remove it"),
        (EXTERNAL + 'kernel = "k"\n', "t.toml: guest.a.kernel: an external VMM is started by somebody else"),
        (EXTERNAL + 'arguments = ["-s"]\n', "t.toml: guest.a.arguments: an external VMM is started by somebody else"),
        (QEMU + 'arguments = ["\\u0000"]\n', "t.toml: guest.a.arguments: an argument holds a NUL"),
        (QEMU + QEMU.replace("[guest.a]", '[guest."a.vmm"]'), "the name 'a.vmm' is taken by guest.a; rename one"),
    ],
)
def test_vm_refuses(text: str, expected: str) -> None:
    """The message names file, key and reason."""
    with pytest.raises(ConfigError) as caught:
        resolve(text)

    assert expected in str(caught.value)


def test_external_vm_may_have_all_devices() -> None:
    """What its VMM can is not known."""
    text = 'devices = { disk = "disk0", virtio_console = "tty0", rng = "rng0", net = "net0" }\n'

    assert vm(EXTERNAL + text).devices == ("disk", "net", "rng", "virtio_console")


def test_vmm_is_a_process_behind_its_guest_with_its_policy() -> None:
    """An external VMM has no process of ours."""
    external = EXTERNAL.replace("[guest.a]", "[guest.b]")

    topology = resolve(QEMU + 'restart = "always"\n' + external)

    assert [(process.name, process.kind) for process in topology.processes()][-3:] == [
        ("a", "guest"),
        ("b", "guest"),
        ("a.vmm", "vmm"),
    ]
    vmm = topology.processes()[-1]
    assert (vmm.argv[-3:], vmm.restart) == (("-m", "services.vmm", "a.vmm"), "always")
    (spec,) = [spec for spec in topology.specs() if isinstance(spec, VmmSpec)]
    assert spec.guest is topology.guest("a")


def test_vmm_is_on_the_host_of_its_guest() -> None:
    """Its sockets are in the run directory of that host."""
    text = '[host.east]\naddress = "127.0.0.1"\n[host.west]\naddress = "127.0.0.2"\n[topology]\nkeys = "keys"\n'
    placed = HEAD.replace("[hypervisor.hv0]", '[hypervisor.hv0]\nhost = "west"')
    placed = placed.replace('kind = "', 'host = "west"\nkind = "')

    topology = topology_from_text(text + placed + QEMU, Origin("t.toml", Path("/base/t.toml"), Path("/base")))

    assert topology.at("west").names("vmm") == ["a.vmm"]
    assert topology.at("east").names("vmm") == []


def test_sockets_are_in_a_folder_of_the_run_directory() -> None:
    """A name for each device and one for the serial console."""
    assert vm_socket(Path("/run/x"), "a", "disk") == Path("/run/x/vm/a.disk.vu")
    assert serial_socket(Path("/run/x"), "a") == Path("/run/x/vm/a.serial")


def test_socket_path_that_is_too_long_is_refused_at_once() -> None:
    """108 bytes hold the path and a NUL."""
    with pytest.raises(EndpointError, match=r"socket path has \d+ bytes, the limit is 107"):
        resolve(QEMU.replace("[guest.a]", f"[guest.{'a' * 50}]"), Path(f"/{'b' * 60}"))


def test_missing_kernel_and_initrd_are_named(tmp_path: Path) -> None:
    """So is a VMM that is not installed, by its package."""
    errors = [str(error) for error in vm(QEMU + 'kernel = "k"\ninitrd = "i"\n', tmp_path).missing_files()]

    assert f"guest a: {tmp_path}/k: no such image file; set kernel" in errors
    assert f"guest a: {tmp_path}/i: no such image file; set initrd" in errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (QEMU, "guest a: no qemu on this machine; install qemu-system-x86, or choose another VMM"),
        (UML, "guest a: no uml on this machine; install user-mode-linux, or choose another VMM"),
    ],
)
def test_missing_vmm_is_named_with_its_package(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on PATH."""
    monkeypatch.setenv("PATH", "")

    assert expected in [str(error) for error in vm(text).missing_files()]


def test_uml_with_a_kernel_of_ones_own_needs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the program."""
    monkeypatch.setenv("PATH", "")
    (tmp_path / "linux").touch()

    assert vm(UML + f'kernel = "{tmp_path}/linux"\n').missing_files() == []


def test_external_vm_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its VMM is not ours to find."""
    monkeypatch.setenv("PATH", "")

    assert vm(EXTERNAL).missing_files() == []
