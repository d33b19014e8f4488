"""A driver's ring in plain memory, and what its requests look like once they are messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from iovirt_dist.guest.armed_queue import Outgoing
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import Segment, driver_ring, ring_setup
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.payload import split_payload
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, Doorbell
from iovirt_dist.wire.requests import COMPLETION, REQUEST, QueueRequest

NOTIFY = 0xFEB0_0050
RING = 0x1000
HEADERS = 0x2_0000
DATA = 0x4_0000
HEADER_BYTES = 16
SPLIT = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX, Feature.RING_INDIRECT_DESC)
PACKED = SPLIT | mask(Feature.RING_PACKED)
MEMORY_BYTES = 2 << 20


class QueueCompletion(NamedTuple):
    """Outcome of one request.

    Attributes:
        head: The request's number.
        length: Bytes of data that are written to the start of its writable part.
        tail: Value of the last writable byte, or None to leave it: a status behind data of any length.
    """

    head: int
    length: int = 0
    tail: int | None = None


def pack_completions(completions: list[QueueCompletion]) -> bytes:
    """Pack entries into the ``completions`` field of `Completions`."""
    pack = COMPLETION.pack
    return b"".join(pack(c.head, c.tail is not None, c.tail or 0, c.length) for c in completions)


class Rung(NamedTuple):
    """A doorbell with its requests unpacked."""

    notifications: int
    interrupt_at: int
    requests: list[QueueRequest]


class DriverBench:
    """A queue as its driver has it.

    Args:
        features: Negotiated.
        size: Queue size.
        header_bytes: As the device class has it.
        generation: Of its arming.
        memory_bytes: Of the guest.
    """

    def __init__(
        self,
        features: int = SPLIT,
        size: int = 256,
        header_bytes: int = HEADER_BYTES,
        generation: int = 7,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.memory = ByteMemory(memory_bytes)
        self.setup = setup = ring_setup(RING, size, features)
        self.driver = driver_ring(self.memory, setup)
        self.arm = ArmQueue(
            2,
            1,
            generation,
            NOTIFY,
            size,
            setup.descriptors,
            setup.driver_area,
            setup.device_area,
            features,
            header_bytes,
        )

    def add_read(self, number: int, length: int = 4096) -> int:
        """Offer a request as for a disk read: a header with the number in it, room for data and for a status."""
        self.memory.write(HEADERS + 32 * number, bytes([number]) * HEADER_BYTES)
        return self.driver.add(
            [(HEADERS + 32 * number, HEADER_BYTES)],
            [(DATA + 0x2000 * number, length), (HEADERS + 32 * number + HEADER_BYTES, 1)],
        )

    def add_write(self, number: int, data: bytes) -> int:
        """Offer a request as for a disk write: a header, data, and room for a status."""
        self.memory.write(HEADERS + 32 * number, bytes([number]) * HEADER_BYTES)
        self.memory.write(DATA + 0x2000 * number, data)
        return self.driver.add(
            [(HEADERS + 32 * number, HEADER_BYTES), (DATA + 0x2000 * number, len(data))],
            [(HEADERS + 32 * number + HEADER_BYTES, 1)],
        )

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment]) -> int:
        """Offer any request."""
        return self.driver.add(readable, writable)

    def data(self, number: int, length: int) -> bytes:
        """What a read has left in memory."""
        return self.memory.read(DATA + 0x2000 * number, length)

    def status(self, number: int) -> int:
        """The status byte of a request."""
        return self.memory.read(HEADERS + 32 * number + HEADER_BYTES, 1)[0]

    def completions(self, *completions: QueueCompletion, interrupt: bool = False, generation: int = 7) -> Completions:
        """A batch as the hypervisor sends it."""
        return Completions(2, 1, generation, interrupt, pack_completions(list(completions)))

    def rung(self, outgoing: Outgoing) -> Rung:
        """Unpack a doorbell, checking that it is well-formed."""
        return unpack(outgoing.body, outgoing.payload, self.arm.header_bytes)


def unpack(body: object, payload: Sequence[Buffer], header_bytes: int = HEADER_BYTES) -> Rung:
    """Unpack a doorbell as a hypervisor does."""
    assert isinstance(body, Doorbell)
    step = REQUEST.size + header_bytes
    assert len(body.requests) % step == 0
    requests = []
    for at in range(0, len(body.requests), step):
        head, zero, readable, writable = REQUEST.unpack_from(body.requests, at)
        assert zero == 0
        header = body.requests[at + REQUEST.size : at + step]
        requests.append(QueueRequest(head, readable, writable, header, b""))
    pieces = split_payload(payload, [max(request.readable - header_bytes, 0) for request in requests])
    requests = [request._replace(data=bytes(data)) for request, data in zip(requests, pieces, strict=True)]
    return Rung(body.notifications, body.interrupt_at, requests)
