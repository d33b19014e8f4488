"""A driver, its ring, the guest's process and the device in the hypervisor, with messages that take their time.

The driver sleeps until it is interrupted and acknowledges as section 4.2.3.4 of VIRTIO 1.2 says. Whatever is under way
at whatever point: no request is lost, doubled or answered with another's data, and no interrupt is missed, which would
leave the driver asleep with its requests done.
"""

from __future__ import annotations

import random
from collections import deque
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.guest.queues import ArmedQueues
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.virtio.block import HEADER, BlockFeature
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.virtio.ring import RingFullError, RingSetup, driver_ring, ring_setup
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue
from tests.unit.hypervisor.machines.parts import Disk

EXAMPLES = 60
BASE = 0x1_0000_0000
LIVE = 15
SIZE = 16
SLOT = 1024
"""Bytes of memory for each request: header at 0, status at 16, a sector from 512 on."""
FEATURES = mask(Feature.VERSION_1, BlockFeature.FLUSH)
LAYOUTS = {
    "split": 0,
    "split, event index": mask(Feature.RING_EVENT_IDX),
    "packed": mask(Feature.RING_PACKED),
    "packed, event index": mask(Feature.RING_PACKED, Feature.RING_EVENT_IDX),
}


def content(offset: int) -> bytes:
    """What a sector holds."""
    return (offset // 512).to_bytes(8, "little") * 64


class Ring:
    """Everything from the driver to the disk, with a queue of messages each way.

    Args:
        features: Negotiated besides the least.
        dice: Decides what happens when.
    """

    def __init__(self, features: int, dice: random.Random) -> None:
        self.dice = dice
        self.memory = ByteMemory(1 << 16)
        self.setup: RingSetup = ring_setup(0, SIZE, features | FEATURES)
        self.driver = driver_ring(self.memory, self.setup)
        self.queues = ArmedQueues(self.memory)
        self.to_hypervisor: deque[tuple[Message | tuple[int, int], list[Buffer]]] = deque()
        self.to_guest: deque[tuple[Message | tuple[int, ...], list[Buffer]]] = deque()
        self.level = 0
        self.disk = Disk()
        self.lines = InterruptLines()
        self.host = DriverInterception(self.lines.take_changes, count(1).__next__)
        self.blk = VirtioBlk(self.disk)
        self.device = VirtioMmio(0, BASE, self.blk, self.lines.line(0), self.host)
        self.host.add(self.device)
        self.submitted: dict[int, tuple[int, int]] = {}
        self.free = list(range(1, 33))
        self.done = 0
        self.interrupts = 0

    # --- the driver

    def store(self, register: int, value: int) -> None:
        """A posted store; to the notify register of an armed queue it is a doorbell."""
        queue = self.queues.by_doorbell.get((BASE + register, value))
        if queue is not None:
            self.tell([(out.body, list(out.payload)) for out in queue.gather(1)])
        else:
            self.to_hypervisor.append(((register, value), []))

    def load(self, register: int) -> int:
        """A load: what was posted arrives first, and what was sent before the reply is seen before it."""
        while self.to_hypervisor:
            self.hypervisor_step()
        value = self.device.read(register, 4, 0)
        while self.to_guest:
            self.guest_step()
        return value

    def initialise(self) -> None:
        """Section 3.1.1."""
        setup = self.setup
        for register, value in (
            (Register.STATUS, 3),
            (Register.DRIVER_FEATURES_SEL, 1),
            (Register.DRIVER_FEATURES, setup.features >> 32),
            (Register.DRIVER_FEATURES_SEL, 0),
            (Register.DRIVER_FEATURES, setup.features & 0xFFFF_FFFF),
            (Register.STATUS, 11),
            (Register.QUEUE_NUM, SIZE),
            (Register.QUEUE_DESC_LOW, setup.descriptors),
            (Register.QUEUE_DRIVER_LOW, setup.driver_area),
            (Register.QUEUE_DEVICE_LOW, setup.device_area),
            (Register.QUEUE_READY, 1),
            (Register.STATUS, LIVE),
        ):
            self.store(register, value)

    def submit(self) -> None:
        """Put some reads on the ring and notify if the device wants to know."""
        for _ in range(self.dice.randrange(1, 5)):
            slot, sector = self.free[-1], self.dice.randrange(2048)
            at = SLOT * slot + 0x4000
            self.memory.write(at, HEADER.pack(0, 0, sector) + b"\xff")
            try:
                head = self.driver.add([(at, 16)], [(at + 512, 512), (at + 16, 1)])
            except RingFullError:
                break
            self.free.pop()
            self.submitted[head] = slot, sector
            self.something_else()
        if self.driver.notify_needed():
            self.store(Register.QUEUE_NOTIFY, 0)

    def interrupt(self) -> None:
        """The driver's handler; other things happen between any two of its steps."""
        self.interrupts += 1
        status = self.load(Register.INTERRUPT_STATUS)
        self.something_else()
        self.store(Register.INTERRUPT_ACK, status)
        self.something_else()
        waiting = True
        while waiting:
            for head, written in self.driver.take_used():
                slot, sector = self.submitted.pop(head)
                at = SLOT * slot + 0x4000
                assert written == 513
                assert self.memory.read(at + 16, 1) == b"\0"
                assert self.memory.read(at + 512, 512) == content(sector * 512)
                self.free.append(slot)
                self.done += 1
            self.something_else()
            waiting = self.driver.enable_interrupts()

    # --- messages

    def tell(self, messages: list[tuple[Message, list[Buffer]]]) -> None:
        """Send messages of the guest's process."""
        self.to_hypervisor.extend((body, [bytes(frame) for frame in frames]) for body, frames in messages)

    def guest_step(self) -> None:
        """The guest's process takes a message."""
        body, frames = self.to_guest.popleft()
        if isinstance(body, ArmQueue):
            self.tell([(out.body, list(out.payload)) for out in self.queues.arm(body)])
        elif isinstance(body, DisarmQueue):
            self.queues.disarm(body)
        elif isinstance(body, Completions):
            self.tell([(out.body, list(out.payload)) for out in self.queues.complete(body, frames)])
            self.take_lines(body.lines)
        elif isinstance(body, tuple):
            self.take_lines(body)

    def take_lines(self, lines: tuple[int, ...]) -> None:
        """An interrupt input changed."""
        if lines:
            self.level = lines[1] & 1

    def hypervisor_step(self) -> None:
        """The hypervisor takes a message and sends what comes of it."""
        body, frames = self.to_hypervisor.popleft()
        if isinstance(body, tuple):
            self.device.write(body[0], 4, body[1], 0)
        else:
            assert self.host.message(body, frames, 0)
        self.send()

    def complete_some(self) -> None:
        """The disk completes some requests, in any order."""
        self.dice.shuffle(self.disk.requests)
        for _ in range(self.dice.randrange(1, 6)):
            if self.disk.requests:
                request = self.disk.requests.pop()
                assert request.opcode is Opcode.READ
                self.blk.complete(request.tag, Status.OK, content(request.offset), 0)
        self.send()

    def send(self) -> None:
        """What the hypervisor sends at the end of a step; lines that did not ride along go alone."""
        self.to_guest.extend((body, list(frames)) for body, frames in self.host.flush(0))
        changes = self.lines.take_changes()
        if changes:
            self.to_guest.append((changes, []))

    def something_else(self) -> None:
        """A little of what happens elsewhere meanwhile."""
        for _ in range(self.dice.choice((0, 0, 1, 2, 4, 8))):
            what = self.dice.randrange(3)
            if what == 0 and self.to_guest:
                self.guest_step()
            elif what == 1 and self.to_hypervisor:
                self.hypervisor_step()
            elif what == 2:
                self.complete_some()

    def settle(self) -> None:
        """Let everything come to rest: all messages arrive, all requests complete, all interrupts are served."""
        for _ in range(1000):
            while self.to_guest:
                self.guest_step()
            while self.to_hypervisor:
                self.hypervisor_step()
            while self.disk.requests:
                self.complete_some()
            if self.level and not self.to_guest:
                self.interrupt()
            elif not self.to_guest and not self.to_hypervisor and not self.disk.requests:
                return
        raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_driver_that_sleeps_until_interrupted_gets_everything_it_asked_for(layout: str, seed: int) -> None:
    """Sixty rounds of requests, interrupts and delays; then everything is done and the line is low."""
    ring = Ring(LAYOUTS[layout], random.Random(seed))
    ring.initialise()

    for _ in range(60):
        ring.submit()
        ring.something_else()
        if ring.level:
            ring.interrupt()
    ring.settle()

    assert ring.submitted == {}
    assert ring.done >= 5
    assert not ring.level
    assert ring.host.faults == {}
