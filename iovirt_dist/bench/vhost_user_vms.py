"""A virtual machine with two disks for the comparison of vhost-user back ends: ours, and qemu-storage-daemon's.

Both are of one raw image. QEMU and User-Mode Linux are started as a topology's guest of kind ``vm`` would be, with one
disk more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Final

from iovirt_dist.bench.processes import READY_WITHIN_S, Processes
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime import vmm_keeper
from iovirt_dist.runtime.status import read_status
from iovirt_dist.runtime.vmm_process import absent_sockets
from iovirt_dist.topology.specs import Topology
from iovirt_dist.topology.vm_files import PACKAGES, Vmm, modules_folder, newest_kernel, vmm_program
from iovirt_dist.topology.vm_specs import VmSpec, vm_socket
from iovirt_dist.vmm.initramfs import BUSYBOX, InitramfsPlan, kernel_modules, write_initramfs
from iovirt_dist.vmm.start import vmm_command

IMAGE_BYTES: Final = 64 << 20
DAEMON: Final = "qemu-storage-daemon"
DAEMON_PACKAGE: Final = "qemu-system-common"
FIO: Final = "fio"
DD: Final = "/bin/dd"
"""Of coreutils, for that of busybox does not tell the time."""
BOOT_WITHIN_S: Final = 240.0
"""On a machine with much other work QEMU's translator took half a minute."""

MEMORY: Final[dict[Vmm, str]] = {"qemu": "768MiB", "uml": "128MiB"}
"""Of the guest, initial RAM disk included: fio has large libraries, and their archive is there twice when it boots."""

_RING: Final = ("disk0", "hv0", "vm")
_LOOK_EVERY_S: Final = 0.1
_BLOCK_BYTES: Final = 512


def topology_text(vmm: Vmm) -> str:
    """The topology: one guest, one disk that writes back as the other side's does."""
    return f"""
[topology]
name = "bench-vhost-user"
run_dir = "run"
lease = "10s"
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = {IMAGE_BYTES}
durability = "write-back"
[guest.vm]
kind = "vm"
vmm = "{vmm}"
hypervisor = "hv0"
initrd = "initrd"
memory = "{MEMORY[vmm]}"
command_line = "quiet panic=-1"
devices.disk = "disk0"
"""


def missing_packages(vmm: Vmm) -> list[str]:
    """Debian packages that the comparison needs and does not find."""
    kernel = newest_kernel() if vmm == "qemu" else None
    there = {
        PACKAGES[vmm].program: vmm_program(vmm) is not None,
        PACKAGES[vmm].kernel: modules_folder(vmm, kernel) is not None,
        DAEMON_PACKAGE: which(DAEMON) is not None,
        "busybox-static": BUSYBOX.is_file(),
    }
    if vmm == "qemu":
        there[FIO] = which(FIO) is not None
    return [package for package, found in there.items() if not found]


class Machine:
    """A booted machine, its back ends, and what its guest prints.

    Args:
        ring: Their processes.
    """

    def __init__(self, ring: Processes) -> None:
        self.ring = ring

    @property
    def output(self) -> str:
        """All that the guest has printed."""
        return self.ring.log("vmm")

    def wait_for(self, line: str, within_s: float) -> None:
        """Wait until the guest has printed a line.

        Raises:
            LocalError: It ended, or has not after that time.
        """
        try:
            self.ring.wait_for(lambda: line in self.output, f"the guest's line '{line}'", within_s, _LOOK_EVERY_S)
        except LocalError as error:
            raise LocalError(error.what, error.where, self.output[-300:].strip()) from None

    def stop(self) -> None:
        """End the VMM and then all else; what processes tell at their end is there then."""
        self.ring.stop("vmm")
        self.ring.stop("vm", "daemon")
        self.ring.stop("hv0")
        self.ring.stop("disk0")


@contextmanager
def booted(vmm: Vmm, script: str, files: Mapping[str, str]) -> Iterator[Machine]:
    """Start both back ends and a machine that runs a script.

    Args:
        vmm: Which.
        script: For the guest's shell.
        files: More text for its initial RAM disk, by path there.

    Raises:
        LocalError: A process does not do what it should.
    """
    with Processes(topology_text(vmm)) as ring:
        (ring.folder / "disk.img").write_bytes(os.urandom(IMAGE_BYTES))
        _write_initrd(ring.folder, vmm, script, files)
        ring.start(*_RING)
        spec = guest_of(ring.topology)
        ours, base = (
            vm_socket(ring.topology.run_dir, spec.name, "disk"),
            vm_socket(ring.topology.run_dir, "base", "disk"),
        )
        ring.start_other("daemon", *daemon_command(ring.folder / "disk.img", base))
        ring.wait_for(lambda: not absent_sockets([ours, base]), "the back ends' sockets", READY_WITHIN_S)
        ring.wait_for(_running(ring), "the guest's machine", READY_WITHIN_S)
        ring.start_other("vmm", *machine_command(spec, ring.topology.run_dir, base))
        yield Machine(ring)


def guest_of(topology: Topology) -> VmSpec:
    """The guest."""
    spec = topology.guest("vm")
    assert isinstance(spec, VmSpec), "as its topology says"
    return spec


def daemon_command(image: Path, socket: Path) -> list[str]:
    """Command line of the other side (qemu-storage-daemon(1)), which takes no lock on the image: it is ours, too."""
    export = f"type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={socket},writable=on"
    return [
        *(DAEMON, "--blockdev", f"driver=file,node-name=file,filename={image},locking=off"),
        *("--blockdev", "driver=raw,node-name=disk,file=file"),
        *("--export", f"{export},num-queues=1,logical-block-size={_BLOCK_BYTES}"),
    ]


def machine_command(spec: VmSpec, run_dir: Path, base: Path) -> list[str]:
    """Command line of the VMM below what ends all of it, with the other side's disk behind ours."""
    if spec.vmm == "qemu":
        more: tuple[str, ...] = (
            "-chardev",
            f"socket,id=base,path={base}",
            "-device",
            "vhost-user-blk-pci,chardev=base",
        )
    else:
        more = (f"virtio_uml.device={base}:2",)
    command = vmm_command(replace(spec, arguments=more), run_dir)
    for folder in command.folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    variables = [f"{name}={value}" for name, value in command.environment.items()]
    # `Processes` starts it through a wrapper that becomes the keeper, so the keeper's parent is this process.
    keeper = (sys.executable, "-I", "-S", vmm_keeper.__file__, str(os.getpid()))
    return ["env", *variables, *keeper, *command.argv]


def _write_initrd(folder: Path, vmm: Vmm, script: str, files: Mapping[str, str]) -> None:
    sources = {}
    for there, text in files.items():
        here = sources[there] = folder / Path(there).name
        here.write_text(text, "utf-8")
    program = which(FIO) if vmm == "qemu" else DD
    assert program is not None, "it is installed"
    modules = kernel_modules(vmm, None)
    plan = InitramfsPlan(vmm=vmm, modules=modules, programs=(Path(program),), files=sources, script=script)
    with (folder / "initrd").open("wb") as file:
        write_initramfs(file, plan)


def _running(ring: Processes) -> Callable[[], bool]:
    return lambda: read_status(ring.run_dir)["vm"].state == "running"
