"""The `vm` machine: the virtio devices of a guest whose CPU is elsewhere (map: `iovirt_dist.platform.vm`)."""

from __future__ import annotations

from dataclasses import replace

from iovirt_dist.hypervisor.address_map import AddressMap, Space
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.virtio import SERIAL_NAME, Windows, build_virtio
from iovirt_dist.platform import vm
from iovirt_dist.platform.level import Level


def build_vm(parts: MachineParts) -> Machine:
    """Build the machine. All it has is intercepted at the driver level, its disk and its first serial port, too.

    Args:
        parts: Backends.

    Raises:
        ConfigError: The disk is none that the machine can have.
    """
    lines = InterruptLines()
    windows = Windows(vm.VIRTIO_BASE, vm.VIRTIO_STRIDE, vm.VIRTIO_SLOTS, lines.line)
    serial = parts.terminal if parts.terminal_connected else None
    virtio = build_virtio(replace(parts, level=Level.DRIVER), lines, windows, serial)
    address_map = AddressMap(parts.guest)
    for name, base, size, device in virtio.placed:
        address_map.add(Space.MEMORY, base, size, device, name)
    return Machine(
        address_map=address_map,
        lines=lines,
        devices={name: device for name, _, _, device in virtio.placed},
        timed=(),
        terminal=virtio.serial,
        terminal_name=SERIAL_NAME if virtio.serial is not None else "",
        disk=virtio.disk,
        interceptors=(virtio.interception,),
        console=virtio.console,
        entropy=virtio.entropy,
        network=virtio.network,
        driver_level=virtio.interception,
    )
