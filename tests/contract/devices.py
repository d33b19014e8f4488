"""The registry of virtual devices that the contract suite and the fuzz test run.

To add a device, write a factory ``(lines: Lines) -> Rig`` and a line in `CASES`. A chip with several register
blocks is one case with several blocks: they share state, so they are exercised, saved and restored together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.ata_taskfile import COMMANDS
from iovirt_dist.hypervisor.vdev.clint import CLINT_BYTES, Clint
from iovirt_dist.hypervisor.vdev.cmos import Cmos
from iovirt_dist.hypervisor.vdev.goldfish_rtc import GoldfishRtc
from iovirt_dist.hypervisor.vdev.i8254 import Pit8254
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair
from iovirt_dist.hypervisor.vdev.pc_misc import A20Gate, KeyboardController, PostPort, SystemControlA
from iovirt_dist.hypervisor.vdev.pci import PciConfiguration
from iovirt_dist.hypervisor.vdev.plic import PLIC_BYTES, Plic
from iovirt_dist.hypervisor.vdev.syscon import SYSCON_BYTES, Syscon
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from iovirt_dist.wire.commands import Opcode, Status
from tests.contract.bench import Block, Lines, Rig, TerminalBench
from tests.contract.virtio_devices import virtio, virtio_blk, virtio_console, virtio_mmio_slot, virtio_net, virtio_rng


class DeviceCase(NamedTuple):
    """One entry of the registry."""

    name: str
    build: Callable[[Lines], Rig]


def system_control_a(lines: Lines) -> Rig:
    """Port 92h."""
    a20, reset = A20Gate(lines.line("a20 at port 92h")), lines.strobe("reset")
    return Rig((Block(SystemControlA(a20, reset), 1),))


def post_port(_lines: Lines) -> Rig:
    """Port 80h."""
    return Rig((Block(PostPort(), 1),))


def keyboard_controller(lines: Lines) -> Rig:
    """Ports 60h and 64h."""
    chip = KeyboardController(A20Gate(lambda _level: None), lines.strobe("reset"))
    return Rig((Block(chip.data_port, 1), Block(chip.command_port, 1)))


def pic(lines: Lines, latch_edges: bool = True) -> Rig:
    """The 8259 pair with its inputs and the acknowledge cycle."""
    chip = Pic8259Pair(lines.line("INTR"), latch_edges)

    def set_irq(value: int, _now_ns: int) -> None:
        chip.set_irq(value & 15, bool(value & 16))

    def acknowledge(_value: int, _now_ns: int) -> int:
        return chip.acknowledge()

    blocks = (Block(chip.master_ports, 2), Block(chip.slave_ports, 2), Block(chip.elcr_ports, 2))
    return Rig(blocks, (set_irq, acknowledge))


def pit(lines: Lines) -> Rig:
    """The 8254 with port 61h."""
    chip = Pit8254(lines.line("IRQ 0"))
    return Rig((Block(chip.counter_ports, 4), Block(chip.system_control_b, 1)))


def cmos(lines: Lines) -> Rig:
    """Ports 70h and 71h."""
    return Rig((Block(Cmos(lines.line("IRQ 8"), 128 << 20, 1_794_000_000_250_000_000), 2),))


def pci(lines: Lines) -> Rig:
    """Ports CF8h to CFFh."""
    return Rig((Block(PciConfiguration(lines.strobe("reset")), 8),))


def uart(lines: Lines) -> Rig:
    """The 16550 with typed bytes, breaks and a terminal that has no space at times."""
    terminal = TerminalBench()
    chip = Uart16550(lines.line("INTRPT"), terminal)

    def receive(value: int, now_ns: int) -> int:
        return chip.receive(bytes(value & 31), now_ns)

    def receive_break(_value: int, now_ns: int) -> None:
        chip.receive_break(now_ns)

    def resume(_value: int, now_ns: int) -> None:
        chip.resume(now_ns)

    return Rig((Block(chip, 8), Block(terminal, 1)), (receive, receive_break, resume))


class DiskBench:
    """A disk backend that keeps its last request."""

    size_bytes = 20_000 * 512
    block_bytes = 512
    read_only = False
    serial = "BENCH"

    def __init__(self) -> None:
        self.last: DiskRequest | None = None

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.last = request


def ata(lines: Lines) -> Rig:
    """An ATA channel with a disk that completes or fails, and a driver that issues commands and moves data."""
    disk = DiskBench()
    channel = AtaChannel(lines.line("INTRQ"), disk)
    codes, statuses = sorted(COMMANDS), list(Status)

    def complete(value: int, now_ns: int) -> None:
        status = statuses[value % len(statuses)] if value & 0x700 == 0 else Status.OK
        if disk.last is not None:
            length = disk.last.length if disk.last.opcode is Opcode.READ and status is Status.OK else 0
            channel.complete(disk.last.tag, status, bytes((value & 0xFF,)) * length, now_ns)

    def issue(value: int, now_ns: int) -> None:
        for offset, byte in ((2, value >> 8 & 7), (3, 1 + (value >> 16 & 7)), (4, 0), (5, 0), (6, 0x40)):
            channel.write(offset, 1, byte, now_ns)
        channel.write(7, 1, codes[(value & 0xFF) % len(codes)], now_ns)

    def move(value: int, now_ns: int) -> bytes:
        channel.write_string(0, 2, bytes((value & 0xFF,)) * (value >> 8 & 0x7FE), now_ns)
        return channel.read_string(0, 2, value >> 8 & 0x3FF, now_ns)

    return Rig((Block(channel, 8), Block(channel.control, 1)), (complete, issue, move))


def empty_ata(lines: Lines) -> Rig:
    """An ATA channel with nothing attached."""
    channel = AtaChannel(lines.line("INTRQ"), None)
    return Rig((Block(channel, 8), Block(channel.control, 1)))


def plic(lines: Lines) -> Rig:
    """The interrupt controller of `virt` with its sources."""
    chip = Plic((lines.line("M"), lines.line("S")))

    def set_irq(value: int, _now_ns: int) -> None:
        chip.set_irq(1 + value % 96, bool(value & 0x100))

    def serve(value: int, now_ns: int) -> int:
        source = chip.read(0x201004, 4, now_ns)
        chip.write(0x201004, 4, source if value & 1 else value >> 1 & 127, now_ns)
        return source

    return Rig((Block(chip, PLIC_BYTES),), (set_irq, serve))


def clint(lines: Lines) -> Rig:
    """The core-local interruptor, with compare values near the present."""
    chip = Clint(lines.line("MSIP"), lines.line("MTIP"))

    def set_timer(value: int, now_ns: int) -> None:
        chip.write(0x4000, 8, chip.time(now_ns) + value % 1000, now_ns)

    return Rig((Block(chip, CLINT_BYTES),), (set_timer,))


def goldfish_rtc(lines: Lines) -> Rig:
    """The clock of `virt`, with alarms near the present."""
    chip = GoldfishRtc(lines.line("alarm"), 1_794_000_000_250_000_000)

    def set_alarm(value: int, now_ns: int) -> None:
        alarm_ns = chip.wall_ns(now_ns) + value % 1_000_000
        chip.write(0x0C, 4, alarm_ns >> 32, now_ns)
        chip.write(0x08, 4, alarm_ns & 0xFFFF_FFFF, now_ns)

    return Rig((Block(chip, 0x20),), (set_alarm,))


def syscon(lines: Lines) -> Rig:
    """The power-off device of `virt`."""
    power_off, reboot = lines.strobe("power off"), lines.strobe("reboot")
    return Rig((Block(Syscon(lambda _code: power_off(), reboot), SYSCON_BYTES),))


CASES: tuple[DeviceCase, ...] = (
    DeviceCase("port 92h", system_control_a),
    DeviceCase("port 80h", post_port),
    DeviceCase("8259 pair", pic),
    DeviceCase("8259 pair by data sheet", partial(pic, latch_edges=False)),
    DeviceCase("8254", pit),
    DeviceCase("cmos", cmos),
    DeviceCase("pci", pci),
    DeviceCase("8042", keyboard_controller),
    DeviceCase("16550", uart),
    DeviceCase("ata", ata),
    DeviceCase("ata without a disk", empty_ata),
    DeviceCase("plic", plic),
    DeviceCase("clint", clint),
    DeviceCase("goldfish rtc", goldfish_rtc),
    DeviceCase("syscon", syscon),
    DeviceCase("virtio-mmio slot", virtio_mmio_slot),
    DeviceCase("virtio-blk", partial(virtio, build=virtio_blk)),
    DeviceCase("virtio-blk with four queues", partial(virtio, build=partial(virtio_blk, queues=4))),
    DeviceCase("virtio-console", partial(virtio, build=virtio_console)),
    DeviceCase("virtio-rng", partial(virtio, build=virtio_rng)),
    DeviceCase("virtio-net", partial(virtio, build=virtio_net)),
)
