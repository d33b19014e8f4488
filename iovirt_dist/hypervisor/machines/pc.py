"""The `pc` machine: what firmware and operating systems expect of an i440FX/PIIX3 computer without a screen.

Interrupts: IRQ0 8254, IRQ4 16550, IRQ8 RTC, IRQ14 ATA; IRQ5, 9, 10 and 11 are the virtio windows' and level-triggered,
as firmware would have set them; line 0 of the CPU is INTR. Ports that nobody has read as all
ones, but the secondary ATA channel reads 0: a status of FFh looks busy for ever to a driver that polls it.
"""

from __future__ import annotations

from typing import NamedTuple

from iovirt_dist.hypervisor.address_map import AddressMap, Space
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.virtio import Windows, build_virtio
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.cmos import Cmos
from iovirt_dist.hypervisor.vdev.device import Device
from iovirt_dist.hypervisor.vdev.i8254 import Pit8254
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair
from iovirt_dist.hypervisor.vdev.pc_misc import A20Gate, KeyboardController, PostPort, SystemControlA
from iovirt_dist.hypervisor.vdev.pci import PciConfiguration
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from iovirt_dist.platform import pc
from iovirt_dist.platform.level import Level
from iovirt_dist.wire.messages import PowerAction

INTR = 0
"""Line of the CPU."""


def build_pc(parts: MachineParts) -> Machine:
    """Build the machine.

    Args:
        parts: Memory size, backends and wall clock.

    Raises:
        ConfigError: The disk is none that the machine can have.
    """
    lines = InterruptLines()
    pic = Pic8259Pair(lines.line(INTR))
    for port, levels in enumerate(pc.LEVEL_TRIGGERED_IRQS.to_bytes(2, "little")):
        pic.elcr_ports.write(port, 1, levels, 0)
    isa = _isa_devices(parts, pic)
    windows = Windows(pc.VIRTIO_BASE, pc.VIRTIO_STRIDE, pc.VIRTIO_SLOTS, lambda slot: pic.line(pc.VIRTIO_IRQS[slot]))
    virtio = build_virtio(parts, lines, windows)
    address_map = AddressMap(parts.guest)
    for name, base, size, device in isa.placed:
        address_map.add(Space.PORT, base, size, device, name)
    for name, base, size, device in virtio.placed:
        address_map.add(Space.MEMORY, base, size, device, name)
    return Machine(
        address_map=address_map,
        lines=lines,
        devices={name: device for name, _, _, device in (*reversed(isa.placed), *virtio.placed)},
        timed=isa.timed,
        terminal=isa.uart,
        terminal_name="uart",
        disk=virtio.disk or isa.ata,
        acknowledge=pic.acknowledge,
        interceptors=(virtio.interception,),
        console=virtio.console,
        entropy=virtio.entropy,
        network=virtio.network,
        driver_level=virtio.interception,
    )


class _IsaDevices(NamedTuple):
    """The devices behind ports: name, first port, number of ports and registers of each range."""

    placed: tuple[tuple[str, int, int, Device], ...]
    timed: tuple[Device, ...]
    uart: Uart16550
    ata: AtaChannel


def _isa_devices(parts: MachineParts, pic: Pic8259Pair) -> _IsaDevices:
    """Build everything that has ports; the ATA channel has the disk only at the operation level."""
    pit = Pit8254(pic.line(0), lambda: pic.unmasked(0))
    cmos = Cmos(pic.line(8), parts.memory_bytes, parts.wall_ns)
    uart = Uart16550(pic.line(4), parts.terminal)
    ata = AtaChannel(pic.line(14), parts.disk if parts.level is Level.OPERATION else None)
    no_ata = AtaChannel(pic.line(15), None)
    a20 = A20Gate(lambda _open: None)
    keyboard = KeyboardController(a20, lambda: parts.power(PowerAction.RESET, "keyboard controller"))
    placed: tuple[tuple[str, int, int, Device], ...] = (
        ("pic", 0x20, 2, pic.master_ports),
        ("pic", 0xA0, 2, pic.slave_ports),
        ("pic", 0x4D0, 2, pic.elcr_ports),
        ("pit", 0x40, 4, pit.counter_ports),
        ("pit", 0x61, 1, pit.system_control_b),
        ("keyboard", 0x60, 1, keyboard.data_port),
        ("keyboard", 0x64, 1, keyboard.command_port),
        ("cmos", 0x70, 2, cmos),
        ("post", 0x80, 1, PostPort()),
        ("port92", 0x92, 1, SystemControlA(a20, lambda: parts.power(PowerAction.RESET, "port 92h"))),
        ("ata", 0x1F0, 8, ata),
        ("ata", 0x3F6, 1, ata.control),
        ("ata1", 0x170, 8, no_ata),
        ("ata1", 0x376, 1, no_ata.control),
        ("uart", 0x3F8, 8, uart),
        ("pci", 0xCF8, 8, PciConfiguration(lambda: parts.power(PowerAction.RESET, "port CF9h"))),
    )
    return _IsaDevices(placed, (pit.counter_ports, cmos, uart), uart, ata)
