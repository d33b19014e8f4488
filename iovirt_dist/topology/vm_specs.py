"""Guests of kind ``vm`` in a checked topology, the processes that run their VMMs, and the sockets between the two.

A real kernel runs in a virtual machine monitor that is not ours. Its devices are vhost-user sockets, which the guest's
process serves, the gateway: it is the hypervisor's guest. The VMM runs below a process of its own, which is named after
the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from iovirt_dist.errors import ImageError
from iovirt_dist.ids import ProcessName
from iovirt_dist.platform.level import Level
from iovirt_dist.topology.endpoint import check_socket_path
from iovirt_dist.topology.guest_specs import GuestBase, Restart
from iovirt_dist.topology.vm_files import PACKAGES, newest_kernel, vmm_program

VmDevice = Literal["disk", "net", "rng", "virtio_console"]
"""Devices of a virtual machine that are vhost-user sockets."""

VM_DEVICES: Final[tuple[VmDevice, ...]] = ("disk", "net", "rng", "virtio_console")

VMM_SUFFIX: Final = ".vmm"
"""Behind a guest's name: the process that runs its VMM."""

SOCKET_FOLDER: Final = "vm"
"""Folder of the sockets of virtual machines in a run directory; the names of processes cannot collide with theirs."""


def vm_socket(run_dir: Path, guest: str, device: VmDevice) -> Path:
    """Path of the vhost-user socket of one device: the gateway listens there, the VMM connects.

    Raises:
        EndpointError: The path is longer than the operating system takes.
    """
    return check_socket_path(run_dir / SOCKET_FOLDER / f"{guest}.{device}.vu")


def serial_socket(run_dir: Path, guest: str) -> Path:
    """Path of the socket of the serial console, raw bytes both ways: the gateway listens, the VMM's process connects.

    Raises:
        EndpointError: The path is longer than the operating system takes.
    """
    return check_socket_path(run_dir / SOCKET_FOLDER / f"{guest}.serial")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec(GuestBase):
    """A guest that is a virtual machine with an operating system of its own, in a VMM that is not ours.

    Attributes:
        vmm: Which VMM; ``external`` is started by somebody else.
        cpus: Virtual CPUs.
        queues: Request queues of its disk.
        kernel: Absolute path of the kernel; None for the newest that is installed.
        initrd: Absolute path of the initial RAM disk; None for none.
        command_line: For the kernel, behind what the VMM's command line needs itself; may be empty.
        arguments: For the VMM, behind ours.
    """

    guest_kind: ClassVar[Literal["vm"]] = "vm"
    level: ClassVar[Level] = Level.DRIVER
    machine: ClassVar[Literal["vm"]] = "vm"
    vmm: Literal["qemu", "uml", "external"]
    cpus: int
    queues: int
    kernel: Path | None
    initrd: Path | None
    command_line: str
    arguments: tuple[str, ...]

    @property
    def devices(self) -> tuple[VmDevice, ...]:
        """Its devices that are vhost-user sockets, in the order of `VM_DEVICES`."""
        return tuple(device for device in VM_DEVICES if getattr(self, device) is not None)

    @property
    def program(self) -> Path | None:
        """The VMM; None if there is none on this machine, or it is not ours to start. Of User-Mode Linux the kernel."""
        if self.vmm == "external":
            return None
        return self.kernel if self.vmm == "uml" and self.kernel is not None else vmm_program(self.vmm)

    def _missing_files(self) -> Iterator[ImageError]:
        if self.vmm == "external":
            return
        where = f"guest {self.name}"
        if self.program is None:
            package = PACKAGES[self.vmm].program
            yield ImageError(f"no {self.vmm} on this machine", where, f"install {package}, or choose another VMM")
        for key, path in (("kernel", self.kernel), ("initrd", self.initrd)):
            if path is not None and not path.is_file():
                yield self._missing(key, path)
        if self.kernel is None and self.vmm == "qemu" and newest_kernel() is None:
            package = PACKAGES["qemu"].kernel
            yield ImageError("no kernel is installed", where, f"install {package}, or set kernel")


@dataclass(frozen=True, slots=True)
class VmmSpec:
    """The process that runs the VMM of one guest; it is where the guest is.

    Attributes:
        guest: What the VMM runs.
    """

    kind: ClassVar[Literal["vmm"]] = "vmm"
    guest: VmSpec

    @property
    def name(self) -> ProcessName:
        """The guest's name with `VMM_SUFFIX`."""
        return ProcessName(f"{self.guest.name}{VMM_SUFFIX}")

    @property
    def restart(self) -> Restart:
        """The guest's."""
        return self.guest.restart
