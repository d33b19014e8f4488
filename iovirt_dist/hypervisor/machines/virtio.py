"""The virtio devices of a machine: which there are, and in which windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from iovirt_dist.drivers.backend import DiskClient, EntropyClient, NetworkClient, TerminalBackend, TerminalClient
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import MachineParts
from iovirt_dist.hypervisor.vdev.device import Device, IrqLine
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_console import VirtioConsole
from iovirt_dist.hypervisor.vdev.virtio_function import VirtioFunction
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.hypervisor.vdev.virtio_mmio_slot import VirtioMmioEmptySlot
from iovirt_dist.hypervisor.vdev.virtio_net import VirtioNet
from iovirt_dist.hypervisor.vdev.virtio_rng import VirtioRng
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.slots import VirtioSlot

SERIAL_NAME: Final = "virtio-serial"
"""Of a virtio console that is the first serial port."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A machine's virtio-mmio windows.

    Attributes:
        base: Guest physical address of the first.
        stride: Bytes from one to the next, all of which are its own.
        count: How many there are.
        line: Gives the interrupt input of each, by its number.
    """

    base: int
    stride: int
    count: int
    line: Callable[[int], IrqLine]


@dataclass(slots=True)
class VirtioDevices:
    """A machine's virtio devices.

    Attributes:
        interception: What takes their messages.
        placed: Name, first address, size and device of every window, empty ones included.
        disk: What completions of the disk backend go to, None without a virtio disk.
        console: What the console backend's input goes to.
        entropy: What the entropy backend's bytes go to.
        network: What the network backend's frames go to.
        serial: What the input of the first serial port goes to, None if no virtio device is that.
    """

    interception: DriverInterception
    placed: list[tuple[str, int, int, Device]] = field(default_factory=list)
    disk: DiskClient | None = None
    console: TerminalClient | None = None
    entropy: EntropyClient | None = None
    network: NetworkClient | None = None
    serial: TerminalClient | None = None


def build_virtio(
    parts: MachineParts, lines: InterruptLines, windows: Windows, serial: TerminalBackend | None = None
) -> VirtioDevices:
    """Build the devices that a machine's parts are for; a disk only if it is intercepted at the driver level.

    Args:
        parts: The backends.
        lines: The CPU's interrupt inputs.
        windows: Where the devices answer.
        serial: What is behind the first serial port, if a virtio console is to be that.

    Raises:
        ConfigError: The disk is none that can be a virtio disk.
    """
    interception = DriverInterception(lines.take_changes, parts.next_generation, parts.tracer)
    devices = VirtioDevices(interception)
    functions: dict[int, tuple[str, VirtioFunction]] = {}
    if parts.disk is not None and parts.level is Level.DRIVER:
        devices.disk = disk = VirtioBlk(parts.disk, parts.memory_bytes, parts.tracer, parts.disk_queues)
        functions[VirtioSlot.DISK] = ("virtio-blk", disk)
    if parts.console is not None:
        devices.console = console = VirtioConsole(parts.console)
        functions[VirtioSlot.CONSOLE] = ("virtio-console", console)
    if parts.entropy is not None:
        devices.entropy = entropy = VirtioRng(parts.entropy)
        functions[VirtioSlot.ENTROPY] = ("virtio-rng", entropy)
    if parts.network is not None:
        devices.network = network = VirtioNet(parts.network)
        functions[VirtioSlot.NETWORK] = ("virtio-net", network)
    if serial is not None:
        devices.serial = port = VirtioConsole(serial)
        functions[VirtioSlot.SERIAL] = (SERIAL_NAME, port)
    for slot in range(windows.count):
        base = windows.base + slot * windows.stride
        name, device = f"virtio{slot}", _empty()
        if slot in functions:
            name, function = functions[slot]
            device = transport = VirtioMmio(slot, base, function, windows.line(slot), interception)
            interception.add(transport)
        devices.placed.append((name, base, windows.stride, device))
    return devices


def _empty() -> Device:
    return VirtioMmioEmptySlot()
