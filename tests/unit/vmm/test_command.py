"""Command lines of VMMs, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.topology import Origin, VmSpec, topology_from_text
from iovirt_dist.vmm.command import VmmCommand, VmmFiles, find_files
from iovirt_dist.vmm.qemu import qemu_command
from iovirt_dist.vmm.uml import uml_command

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
[guest.a]
kind = "vm"
hypervisor = "hv0"
"""
ALONE = [
    "/bin/qemu",
    *("-accel", "tcg", "-machine", "q35,memory-backend=mem", "-cpu", "max"),
    *("-m", "268435456B", "-smp", "1"),
    *("-object", "memory-backend-memfd,id=mem,size=268435456,share=on"),
    *("-no-user-config", "-nodefaults", "-display", "none"),
    *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
]


def vm(text: str) -> VmSpec:
    """The virtual machine of `text`."""
    guest = topology_from_text(HEAD + text, Origin("t.toml", None, Path("/base"))).guest("a")
    assert isinstance(guest, VmSpec)
    return guest


def qemu(text: str, run_dir: str = "/run") -> list[str]:
    """Its command line for QEMU."""
    files = VmmFiles(Path("/bin/qemu"), Path("/boot/k"), Path("/i.cpio") if "initrd" in text else None)
    return list(qemu_command(vm('vmm = "qemu"\n' + text), Path(run_dir), files).argv)


def uml(text: str, run_dir: str = "/run") -> VmmCommand:
    """Its command line for User-Mode Linux."""
    files = VmmFiles(Path("/bin/uml"), Path("/bin/uml"), Path("/i.cpio") if "initrd" in text else None)
    return uml_command(vm('vmm = "uml"\n' + text), Path(run_dir), files)


def test_qemu_without_devices() -> None:
    """Shared memory, a serial console on stdio, a kernel."""
    assert qemu("") == [*ALONE, "-kernel", "/boot/k", "-append", "console=ttyS0"]


def test_qemu_with_everything() -> None:
    """Each device is a socket; commas of paths are doubled; what the user adds is last."""
    text = (
        'memory = "64MiB"\ncpus = 2\nqueues = 2\ninitrd = "i"\ncommand_line = "quiet x=y"\narguments = ["-s"]\n'
        'devices = { disk = "disk0", console = "tty0", rng = "rng0", net = "net0", mac = "02:00:00:00:00:07" }\n'
    )

    assert qemu(text, "/r,n") == [
        "/bin/qemu",
        *("-accel", "tcg", "-machine", "q35,memory-backend=mem", "-cpu", "max"),
        *("-m", "67108864B", "-smp", "2"),
        *("-object", "memory-backend-memfd,id=mem,size=67108864,share=on"),
        *("-no-user-config", "-nodefaults", "-display", "none"),
        *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
        *("-chardev", "socket,id=disk,path=/r,,n/vm/a.disk.vu,reconnect=1"),
        *("-device", "vhost-user-blk-pci,chardev=disk,num-queues=2"),
        *("-chardev", "socket,id=net,path=/r,,n/vm/a.net.vu,reconnect=1"),
        *("-netdev", "vhost-user,id=nic,chardev=net,queues=1"),
        *("-device", "virtio-net-pci,netdev=nic,mac=02:00:00:00:00:07,vectors=0"),
        *("-chardev", "socket,id=rng,path=/r,,n/vm/a.rng.vu"),
        *("-device", "vhost-user-rng-pci,chardev=rng"),
        *("-kernel", "/boot/k", "-initrd", "/i.cpio", "-append", "console=ttyS0 quiet x=y", "-s"),
    ]


def test_uml_without_devices() -> None:
    """One console on stdio; its memory is a file on a tmpfs, its management in the run directory."""
    command = uml("")

    assert command.argv == (
        "/bin/uml",
        "mem=256M",
        *("con0=fd:0,fd:1", "con=null", "ssl=null"),
        *("uml_dir=/run/vm/a.uml", "umid=vm"),
    )
    assert command.environment == {"TMPDIR": "/dev/shm"}
    assert command.folders == (Path("/run/vm/a.uml"),)


def test_uml_with_everything() -> None:
    """Devices by their VIRTIO numbers; what the user adds is last."""
    text = (
        'initrd = "i"\ncommand_line = "quiet x=y"\narguments = ["hostfs=/x"]\n'
        'devices = { disk = "disk0", console = "tty0", virtio_console = "tty0", net = "net0" }\n'
    )

    assert uml(text).argv[5:] == (
        *("uml_dir=/run/vm/a.uml", "umid=vm"),
        "virtio_uml.device=/run/vm/a.disk.vu:2",
        "virtio_uml.device=/run/vm/a.net.vu:1",
        "virtio_uml.device=/run/vm/a.virtio_console.vu:3",
        *("initrd=/i.cpio", "quiet", "x=y", "hostfs=/x"),
    )


@pytest.mark.parametrize("run_dir", ["/a b", "/a:b", '/a"b', "/a'b"])
def test_uml_refuses_paths_that_its_command_line_cannot_say(run_dir: str) -> None:
    """Words end at spaces, sockets at colons."""
    with pytest.raises(ConfigError, match=r"guest a: User-Mode Linux cannot be told of"):
        uml("", run_dir)


def test_command_is_shown_as_a_shell_takes_it() -> None:
    """Each word is quoted where it must be."""
    command = VmmCommand(("vmm", "-append", "console=ttyS0 quiet"), {"TMPDIR": "/a b"})

    assert str(command) == "TMPDIR='/a b' vmm -append 'console=ttyS0 quiet'"


def test_missing_vmm_is_an_error_that_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on PATH."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ImageError, match=r"guest a: no uml on this machine; install user-mode-linux"):
        find_files(vm('vmm = "uml"\n'))


def test_kernel_of_user_mode_linux_is_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was named is run in place of the installed one."""
    installed, named = tmp_path / "linux.uml", tmp_path / "linux"
    for path in (installed, named):
        path.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_files(vm('vmm = "uml"\n')) == VmmFiles(installed, installed, None)
    assert find_files(vm(f'vmm = "uml"\nkernel = "{named}"\n')) == VmmFiles(named, named, None)


def test_kernel_of_qemu_is_the_one_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As is the initial RAM disk."""
    for name in ("qemu-system-x86_64", "k", "i"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = find_files(vm(f'vmm = "qemu"\nkernel = "{tmp_path}/k"\ninitrd = "{tmp_path}/i"\n'))

    assert found == VmmFiles(tmp_path / "qemu-system-x86_64", tmp_path / "k", tmp_path / "i")
