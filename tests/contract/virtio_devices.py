"""Virtio devices on the test bench: a driver that negotiates and rings, and a backend that completes or fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.vdev.device import Quiet, State
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
from tests.contract.bench import Block, Lines, Rig, TerminalBench


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
