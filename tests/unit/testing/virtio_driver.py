"""A virtio-blk driver of a few lines on a rig's guest: negotiates, fills a ring, notifies, waits for the interrupt."""

from __future__ import annotations

from iovirt_dist.platform import virt
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.virtio.block import HEADER, HEADER_BYTES, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.mmio import Register, Status
from iovirt_dist.virtio.ring import driver_ring, ring_setup

SECTOR_BYTES = 512
SIZE = 128
RING = virt.RAM_BASE + 0x1_0000
HEADERS = virt.RAM_BASE + 0x2_0000
DATA = virt.RAM_BASE + 0x4_0000
PLIC_ENABLE_S = 0x2080
"""Enable bits of hart 0's S mode (RISC-V PLIC specification, chapter 4)."""
FEATURES = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX)


class VirtioDisk:
    """The disk in slot 0 of a `virt` machine, enabled.

    Args:
        guest: It has no CPU; its RAM is the rig's.
    """

    def __init__(self, guest: RigGuest) -> None:
        assert isinstance(guest.memory, ByteMemory)
        self.guest = guest
        self.memory = guest.memory
        guest.store(virt.PLIC_BASE + 4 * virt.VIRTIO_IRQ, 4, 1)  # priority
        guest.store(virt.PLIC_BASE + PLIC_ENABLE_S, 4, 1 << virt.VIRTIO_IRQ)
        setup = ring_setup(RING, SIZE, FEATURES)
        for status in (0, Status.ACKNOWLEDGE, Status.ACKNOWLEDGE | Status.DRIVER):
            self.write(Register.STATUS, status)
        for half in (0, 1):
            self.write(Register.DRIVER_FEATURES_SEL, half)
            self.write(Register.DRIVER_FEATURES, FEATURES >> 32 * half & 0xFFFF_FFFF)
        self.write(Register.STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        self.driver = driver_ring(self.memory, setup)
        self.write(Register.QUEUE_SEL, 0)
        self.write(Register.QUEUE_NUM, SIZE)
        for register, address in (
            (Register.QUEUE_DESC_LOW, setup.descriptors),
            (Register.QUEUE_DRIVER_LOW, setup.driver_area),
            (Register.QUEUE_DEVICE_LOW, setup.device_area),
        ):
            self.write(register, address & 0xFFFF_FFFF)
            self.write(register + 4, address >> 32)
        self.write(Register.QUEUE_READY, 1)
        self.write(Register.STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)
        assert self.read(Register.STATUS) & Status.DRIVER_OK

    def read(self, register: int) -> int:
        """Read a register."""
        return self.guest.load(virt.VIRTIO_BASE + register, 4)

    def write(self, register: int, value: int) -> None:
        """Write a register."""
        self.guest.store(virt.VIRTIO_BASE + register, 4, value)

    def offer(self, number: int, kind: BlockRequest, sector: int, length: int) -> int:
        """Offer a request; its data is at `DATA` + 64 KiB for each number."""
        header, data = HEADERS + 32 * number, DATA + 0x1_0000 * number
        self.memory.write(header, HEADER.pack(kind, 0, sector) + b"\xff")
        status = (header + HEADER_BYTES, 1)
        if kind is BlockRequest.IN:
            return self.driver.add([(header, HEADER_BYTES)], [(data, length), status])
        return self.driver.add([(header, HEADER_BYTES), (data, length)], [status])

    def notify(self) -> None:
        """Ring the doorbell."""
        self.write(Register.QUEUE_NOTIFY, 0)

    def data(self, number: int, length: int) -> bytes:
        """What a request has read."""
        return self.memory.read(DATA + 0x1_0000 * number, length)

    def status(self, number: int) -> int:
        """Its status."""
        return self.memory.read(HEADERS + 32 * number + HEADER_BYTES, 1)[0]
