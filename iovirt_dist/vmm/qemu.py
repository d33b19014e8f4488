"""The command line of QEMU for a guest of ours: vhost-user devices over memory that it shares with the gateway.

Source: qemu(1) of QEMU 7.2; "Vhost-user protocol", which needs guest memory in a file descriptor, and so ``memfd``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iovirt_dist.topology.vm_specs import VmSpec, vm_socket
from iovirt_dist.vmm.command import VmmCommand, VmmFiles

MACHINE: Final = "q35"
"""PCI Express, where virtio devices are modern ones by default."""

CONSOLE: Final = "console=ttyS0"

RECONNECT_S: Final = 1
"""Seconds between attempts to reach a gateway that is gone."""

_LASTING: Final = ("disk", "net")
"""Devices that find a gateway that comes back. QEMU connects in the background to what it is to connect to again, and
``vhost-user-rng`` does not wait for that (hw/virtio/vhost-user-rng.c): QEMU would abort."""

VECTORS: Final = 0
"""MSI-X vectors of the network card. With vhost-user QEMU unmasks them by KVM alone (hw/virtio/virtio-pci.c,
`virtio_pci_one_vector_unmask`), and crashes where there is none."""


def qemu_command(spec: VmSpec, run_dir: Path, files: VmmFiles) -> VmmCommand:
    """Return how to start QEMU for a guest.

    KVM is never used: where it exists, it may hang a kernel on a machine that is itself a guest. A reboot reboots, and
    Ctrl-C is the guest's.

    Args:
        spec: The guest.
        run_dir: Where the sockets are.
        files: What it runs.
    """
    size = str(spec.memory_bytes)
    words = [str(files.program), "-accel", "tcg", "-machine", f"{MACHINE},memory-backend=mem", "-cpu", "max"]
    words += ["-m", f"{size}B", "-smp", str(spec.cpus)]
    words += ["-object", f"memory-backend-memfd,id=mem,size={size},share=on"]
    words += ["-no-user-config", "-nodefaults", "-display", "none"]
    words += ["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]
    words += _devices(spec, run_dir)
    words += ["-kernel", str(files.kernel)]
    words += ["-initrd", str(files.initrd)] if files.initrd else []
    words += ["-append", f"{CONSOLE} {spec.command_line}".rstrip()]
    return VmmCommand((*words, *spec.arguments))


def _devices(spec: VmSpec, run_dir: Path) -> Iterator[str]:
    for device in spec.devices:
        path = _escaped(vm_socket(run_dir, spec.name, device))
        again = f",reconnect={RECONNECT_S}" if device in _LASTING else ""
        yield from ("-chardev", f"socket,id={device},path={path}{again}")
        if device == "disk":
            yield from ("-device", f"vhost-user-blk-pci,chardev=disk,num-queues={spec.queues}")
        elif device == "net":
            assert spec.net is not None, "it is among the devices"
            yield from ("-netdev", "vhost-user,id=nic,chardev=net,queues=1")
            yield from ("-device", f"virtio-net-pci,netdev=nic,mac={spec.net.mac.hex(':')},vectors={VECTORS}")
        else:
            assert device == "rng", "QEMU has no other, and the topology is checked"
            yield from ("-device", "vhost-user-rng-pci,chardev=rng")


def _escaped(path: Path) -> str:
    """A path in an option of QEMU, where two commas are one."""
    return str(path).replace(",", ",,")
