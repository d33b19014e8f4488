"""The registry of virtual devices that the contract suite and the fuzz test run.

To add a device, write a factory ``(lines: Lines) -> Rig`` and a line in `CASES`. A chip with several register
blocks is one case with several blocks: they share state, so they are exercised, saved and restored together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.ata_taskfile import COMMANDS
from iovirt_dist.hypervisor.vdev.clint import CLINT_BYTES, Clint
from iovirt_dist.hypervisor.vdev.cmos import Cmos
from iovirt_dist.hypervisor.vdev.device import Device, IrqLine, Quiet, State
from iovirt_dist.hypervisor.vdev.goldfish_rtc import GoldfishRtc
from iovirt_dist.hypervisor.vdev.i8254 import Pit8254
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair
from iovirt_dist.hypervisor.vdev.pc_misc import A20Gate, KeyboardController, PostPort, SystemControlA
from iovirt_dist.hypervisor.vdev.pci import PciConfiguration
from iovirt_dist.hypervisor.vdev.plic import PLIC_BYTES, Plic
from iovirt_dist.hypervisor.vdev.syscon import SYSCON_BYTES, Syscon
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_console import VirtioConsole
from iovirt_dist.hypervisor.vdev.virtio_function import VirtioFunction
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.hypervisor.vdev.virtio_mmio_slot import VirtioMmioEmptySlot
from iovirt_dist.hypervisor.vdev.virtio_net import VirtioNet
from iovirt_dist.hypervisor.vdev.virtio_rng import VirtioRng
from iovirt_dist.platform import virt
from iovirt_dist.virtio.block import HEADER, RANGE
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.queue_messages import Doorbell, QueueBroken, QueueInterrupt
from iovirt_dist.wire.requests import REQUEST


@dataclass
class Lines:
    """Records what a device does with its outputs: the level of every line, and how often each one rose."""

    levels: dict[str, bool] = field(default_factory=dict)
    rises: dict[str, int] = field(default_factory=dict)

    def line(self, name: str) -> IrqLine:
        """Return an output line that records under this name."""
        self.levels[name] = False
        self.rises[name] = 0

        def set_level(level: bool) -> None:
            self.rises[name] += level and not self.levels[name]
            self.levels[name] = level

        return set_level

    def strobe(self, name: str) -> Callable[[], None]:
        """Return an output without a level (a reset pulse), counted under `rises`."""
        self.rises[name] = 0

        def pulse() -> None:
            self.rises[name] += 1

        return pulse


Stimulus: TypeAlias = Callable[[int, int], object]
"""Something the outside does to the device, such as an input line or a received byte: ``(value, now_ns)``, where the
value is any 0..2**32-1. What it returns is compared between a device and its restored twin."""


class Block(NamedTuple):
    """A register block: a device and how many ports or bytes of address space it occupies."""

    device: Device
    size: int


class Rig(NamedTuple):
    """A chip on the test bench: its register blocks and what the outside can do to it."""

    blocks: tuple[Block, ...]
    stimuli: tuple[Stimulus, ...] = ()

    def state(self) -> list[State]:
        """State of every block."""
        return [block.device.state() for block in self.blocks]

    def restore(self, states: list[State]) -> None:
        """Give every block its state."""
        for block, state in zip(self.blocks, states, strict=True):
            block.device.restore(state)

    def deadline_ns(self) -> int | None:
        """The earliest deadline of all blocks."""
        deadlines = [block.device.deadline_ns() for block in self.blocks]
        return min((ns for ns in deadlines if ns is not None), default=None)

    def advance(self, now_ns: int) -> None:
        """Let time pass for every block."""
        for block in self.blocks:
            block.device.advance(now_ns)

    def registers(self) -> Iterator[tuple[Device, int, int]]:
        """Every (device, offset, width) worth an access; large blocks are sampled."""
        for device, size in self.blocks:
            for width in (1, 2, 4, 8):
                if width <= device.max_width:
                    yield from ((device, offset, width) for offset in sample_offsets(size))


def sample_offsets(size: int) -> list[int]:
    """All offsets of a small block; of a large one the first 256, a spread of 61 over it, and the last eight."""
    if size <= 512:
        return list(range(size))
    return sorted({*range(256), *range(0, size, max(1, size // 61)), *range(size - 8, size)})


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


class TerminalBench(Quiet):
    """A terminal backend whose space is a register, so that its state is saved with the UART's."""

    max_width = 1

    def __init__(self) -> None:
        self.free = 200

    def transmit(self, data: bytes) -> None:
        """Take bytes."""
        self.free -= len(data)

    def space(self) -> int:
        """Bytes that are free."""
        return self.free

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """The space."""
        return self.free

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Set the space to 0..31, so that it runs out."""
        self.free = value & 31

    def state(self) -> State:
        """The space."""
        return {"free": self.free}

    def restore(self, state: State) -> None:
        """Take it over."""
        self.free = state["free"]


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


class Generations(Quiet):
    """What numbers the lives of queues, so that the number is saved with them."""

    max_width = 1

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> int:
        """The next."""
        self.number += 1
        return self.number

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Nothing to see."""
        return 0

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Nothing to write."""

    def state(self) -> State:
        """The number."""
        return {"number": self.number}

    def restore(self, state: State) -> None:
        """Take it over."""
        self.number = state["number"]


class VirtioBackend(TerminalBench):
    """Backend of any virtio device: a disk, a source of entropy and a wire, besides the terminal that it is."""

    size_bytes = 20_000 * 512
    block_bytes = 512
    read_only = False
    serial = "BENCH"
    mac = bytes(6)
    mtu = 1500
    link_up = True

    def submit(self, request: DiskRequest) -> None:
        """The device knows what is in flight."""

    def request(self, tag: int, length: int) -> None:
        """The device knows what is in flight."""

    def transmit(self, data: Buffer) -> None:
        """Take output, or a frame."""
        self.free -= min(len(data), self.free)


VirtioStimulus: TypeAlias = Callable[[int, int], object]


def virtio(lines: Lines, build: Callable[[VirtioBackend], tuple[VirtioFunction, VirtioStimulus]]) -> Rig:
    """A virtio device whose driver negotiates, rings doorbells and resets, and whose backend completes or fails."""
    backend, generations = VirtioBackend(), Generations()
    function, complete = build(backend)
    host = DriverInterception(tuple, generations)
    chip = VirtioMmio(0, 0x1000, function, lines.line("irq"), host)
    host.add(chip)

    def initialise(value: int, now_ns: int) -> None:
        if value & 7 == 0:
            start_virtio(chip, value >> 3, now_ns)

    def ring(value: int, now_ns: int) -> object:
        return host.message(*virtio_message(chip, random.Random(value)), now_ns)

    def flush(_value: int, now_ns: int) -> object:
        return [(body, [bytes(frame) for frame in payload]) for body, payload in host.flush(now_ns)]

    blocks = (Block(chip, 0x200), Block(backend, 1), Block(generations, 1))
    return Rig(blocks, (initialise, ring, complete, flush))


def start_virtio(chip: VirtioMmio, refuse: int, now_ns: int) -> None:
    """Go through initialisation, with all features but some."""

    def write(*writes: tuple[int, int]) -> None:
        for register, value in writes:
            chip.write(register, 4, value, now_ns)

    features = chip.offered & ~(refuse & 0xFFFF_FFFF)
    write((Register.STATUS, 0), (Register.STATUS, 1), (Register.STATUS, 3))
    write((Register.DRIVER_FEATURES_SEL, 0), (Register.DRIVER_FEATURES, features & 0xFFFF_FFFF))
    write((Register.DRIVER_FEATURES_SEL, 1), (Register.DRIVER_FEATURES, 1), (Register.STATUS, 11))
    for queue in range(len(chip.queues)):
        write((Register.QUEUE_SEL, queue), (Register.QUEUE_NUM, 16), (0x80, 0x1000), (0x90, 0x2000), (0xA0, 0x3000))
        write((Register.QUEUE_READY, 1))
    write((Register.STATUS, 15))


def virtio_message(chip: VirtioMmio, dice: random.Random) -> tuple[Message, list[bytes]]:
    """A message about one of its queues, most of them doorbells with requests that look like some of its class."""
    queue = dice.choice(chip.queues)
    about = (chip.number, queue.number, max(queue.generation - (dice.random() < 0.1), 0))
    kind = dice.random()
    if kind < 0.02:
        return QueueBroken(*about, "descriptor-loop"), []
    if kind < 0.1:
        return QueueInterrupt(*about), []
    entries, frames = b"", []
    for _ in range(dice.randrange(5)):
        header = HEADER.pack(dice.choice((0, 0, 1, 1, 4, 8, 11, 13, 99)), 0, dice.randrange(20_010))
        data = dice.choice((b"", bytes(512), bytes(16), RANGE.pack(dice.randrange(19_990), 8, 0), dice.randbytes(77)))
        readable = dice.choice((0, 15, *(len(header) + len(data),) * 40))
        writable = dice.choice((0, *(1, 513, 513, 1025, 64) * 8))
        head = dice.randrange(16)
        entries += REQUEST.pack(head, 0, readable, writable) + header[: queue.header_bytes]
        size = max(readable - queue.header_bytes, 0)
        frames += [(header[queue.header_bytes :] + data)[:size].ljust(size, b"x")] if size else []
    return Doorbell(*about, 1, dice.choice((-1, 0, dice.randrange(40))), entries), frames


def virtio_blk(backend: VirtioBackend, queues: int = 1) -> tuple[VirtioFunction, VirtioStimulus]:
    """A block device whose disk completes any of the requests in flight."""
    function = VirtioBlk(backend, queues=queues)

    def complete(value: int, now_ns: int) -> None:
        in_flight = function.state()["in_flight"]
        if in_flight:
            tag, opcode, _, length, _ = in_flight[value % len(in_flight)]
            status = list(Status)[value % len(Status)] if value & 0x700 == 0 else Status.OK
            data = bytes((value & 0xFF,)) * length if opcode == Opcode.READ and status is Status.OK else b""
            function.complete(tag, status, data, now_ns)

    return function, complete


def virtio_console(backend: VirtioBackend) -> tuple[VirtioFunction, VirtioStimulus]:
    """A console on which is typed and whose terminal has space at times."""
    function = VirtioConsole(backend)

    def serve(value: int, now_ns: int) -> int:
        function.resume(now_ns)
        return function.receive(bytes(value & 31), now_ns)

    return function, serve


def virtio_rng(backend: VirtioBackend) -> tuple[VirtioFunction, VirtioStimulus]:
    """An entropy device whose source serves any of the requests in flight."""
    function = VirtioRng(backend)

    def supply(value: int, now_ns: int) -> None:
        in_flight = function.state()["in_flight"]
        if in_flight:
            function.supply(in_flight[value % len(in_flight)][0], Status.OK, bytes(value & 31), now_ns)

    return function, supply


def virtio_net(backend: VirtioBackend) -> tuple[VirtioFunction, VirtioStimulus]:
    """A network card whose link comes and goes, and that receives frames."""
    function = VirtioNet(backend)

    def receive(value: int, now_ns: int) -> bool:
        if value & 15 == 0:
            function.link_changed(bool(value & 16), now_ns)
        return function.receive(bytes(14 + (value & 511)), now_ns)

    return function, receive


def virtio_mmio_slot(_lines: Lines) -> Rig:
    """A virtio-mmio slot with nothing in it."""
    return Rig((Block(VirtioMmioEmptySlot(), virt.VIRTIO_STRIDE),))


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
