"""The `virt` machine: a riscv64 board whose devices are all memory-mapped (map: `iovirt_dist.platform.virt`)."""

from __future__ import annotations

from iovirt_dist.hypervisor.address_map import AddressMap, Space
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.vdev.clint import CLINT_BYTES, Clint
from iovirt_dist.hypervisor.vdev.device import Device
from iovirt_dist.hypervisor.vdev.goldfish_rtc import GOLDFISH_RTC_BYTES, GoldfishRtc
from iovirt_dist.hypervisor.vdev.plic import PLIC_BYTES, Plic
from iovirt_dist.hypervisor.vdev.syscon import SYSCON_BYTES, Syscon
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from iovirt_dist.hypervisor.vdev.virtio_mmio_slot import VIRTIO_MMIO_BYTES, VirtioMmioEmptySlot
from iovirt_dist.platform import virt
from iovirt_dist.wire.messages import PowerAction

UART_BYTES = 8


def build_virt(parts: MachineParts) -> Machine:
    """Build the machine; its virtio slots are empty, so a disk is not reachable yet.

    Args:
        parts: Backends and wall clock.
    """
    lines = InterruptLines()
    plic = Plic((lines.line(virt.MEIP), lines.line(virt.SEIP)), virt.PLIC_SOURCES)
    clint = Clint(lines.line(virt.MSIP), lines.line(virt.MTIP))
    uart = Uart16550(plic.line(virt.UART_IRQ), parts.terminal, virt.UART_CLOCK_HZ)
    rtc = GoldfishRtc(plic.line(virt.RTC_IRQ), parts.wall_ns)
    test = Syscon(
        lambda _code: parts.power(PowerAction.POWER_OFF, "test device"),
        lambda: parts.power(PowerAction.RESET, "test device"),
    )
    placed: list[tuple[str, int, int, Device]] = [
        ("test", virt.TEST_BASE, SYSCON_BYTES, test),
        ("rtc", virt.RTC_BASE, GOLDFISH_RTC_BYTES, rtc),
        ("clint", virt.CLINT_BASE, CLINT_BYTES, clint),
        ("plic", virt.PLIC_BASE, PLIC_BYTES, plic),
        ("uart", virt.UART_BASE, UART_BYTES, uart),
    ]
    for slot in range(virt.VIRTIO_SLOTS):
        base = virt.VIRTIO_BASE + slot * virt.VIRTIO_STRIDE
        placed.append((f"virtio{slot}", base, VIRTIO_MMIO_BYTES, VirtioMmioEmptySlot()))
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
        disk=None,
    )
