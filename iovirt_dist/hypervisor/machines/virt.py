"""The `virt` machine: a riscv64 board whose devices are all memory-mapped (map: `iovirt_dist.platform.virt`)."""

from __future__ import annotations

from iovirt_dist.hypervisor.address_map import AddressMap, Space
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.virtio import Windows, build_virtio
from iovirt_dist.hypervisor.vdev.clint import CLINT_BYTES, Clint
from iovirt_dist.hypervisor.vdev.device import Device
from iovirt_dist.hypervisor.vdev.goldfish_rtc import GOLDFISH_RTC_BYTES, GoldfishRtc
from iovirt_dist.hypervisor.vdev.plic import PLIC_BYTES, Plic
from iovirt_dist.hypervisor.vdev.syscon import SYSCON_BYTES, Syscon
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from iovirt_dist.platform import virt
from iovirt_dist.wire.messages import PowerAction

UART_BYTES = 8


def build_virt(parts: MachineParts) -> Machine:
    """Build the machine. It has no disk but a virtio disk, so at the operation level it has none.

    Args:
        parts: Backends and wall clock.

    Raises:
        ConfigError: The disk is none that the machine can have.
    """
    lines = InterruptLines()
    plic = Plic((lines.line(virt.MEIP), lines.line(virt.SEIP)), virt.PLIC_SOURCES)
    clint = Clint(lines.line(virt.MSIP), lines.line(virt.MTIP))
    uart = Uart16550(plic.line(virt.UART_IRQ), parts.terminal, virt.UART_CLOCK_HZ)
    rtc = GoldfishRtc(plic.line(virt.RTC_IRQ), parts.wall_ns)
    placed: list[tuple[str, int, int, Device]] = [
        ("test", virt.TEST_BASE, SYSCON_BYTES, _test_device(parts)),
        ("rtc", virt.RTC_BASE, GOLDFISH_RTC_BYTES, rtc),
        ("clint", virt.CLINT_BASE, CLINT_BYTES, clint),
        ("plic", virt.PLIC_BASE, PLIC_BYTES, plic),
        ("uart", virt.UART_BASE, UART_BYTES, uart),
    ]
    windows = Windows(
        virt.VIRTIO_BASE, virt.VIRTIO_STRIDE, virt.VIRTIO_SLOTS, lambda slot: plic.line(virt.VIRTIO_IRQ + slot)
    )
    virtio = build_virtio(parts, lines, windows)
    placed += virtio.placed
    address_map = AddressMap(parts.guest)
    for name, base, size, device in placed:
        address_map.add(Space.MEMORY, base, size, device, name)
    return Machine(
        address_map=address_map,
        lines=lines,
        devices={name: device for name, _, _, device in placed},
        timed=(clint, rtc, uart),
        terminal=uart,
        terminal_name="uart",
        disk=virtio.disk,
        interceptors=(virtio.interception,),
        console=virtio.console,
        entropy=virtio.entropy,
        network=virtio.network,
        driver_level=virtio.interception,
    )


def _test_device(parts: MachineParts) -> Syscon:
    """What switches the machine off and resets it."""
    return Syscon(
        lambda _code: parts.power(PowerAction.POWER_OFF, "test device"),
        lambda: parts.power(PowerAction.RESET, "test device"),
    )
