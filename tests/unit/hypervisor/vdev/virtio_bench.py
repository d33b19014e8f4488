"""A virtio device with a driver's hands on its registers, and a guest's process that packs and unpacks its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.intercept.interceptor import Outgoing
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_console import VirtioConsole
from iovirt_dist.hypervisor.vdev.virtio_function import VirtioFunction
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.virtio.block import HEADER, BlockStatus
from iovirt_dist.virtio.mmio import Register, Status
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.commands import Status as CommandStatus
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.payload import join_pieces, split_payload
from iovirt_dist.wire.queue_messages import NEVER, ArmQueue, Completions, DisarmQueue, Doorbell
from iovirt_dist.wire.requests import COMPLETION, REQUEST

BASE = 0x1000_1000
NUMBER = 3
"""Of the device under test in its machine."""
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8
NEEDS_RESET, FAILED = 64, 128
USED, CONFIGURATION = 1, 2


class Offered(NamedTuple):
    """A request as a driver puts it on its ring.

    Attributes:
        head: Its number.
        readable: Bytes that the device may read.
        writable: Bytes that it may write.
    """

    head: int
    readable: bytes = b""
    writable: int = 0


class Returned(NamedTuple):
    """A request as it came back: data for the start of the writable part, value of its last byte."""

    head: int
    data: bytes = b""
    tail: int | None = None


def pack_requests(requests: Sequence[Offered], header_bytes: int) -> tuple[bytes, list[Buffer]]:
    """What the guest's process makes of requests: entries and payload frames."""
    entries = b"".join(
        REQUEST.pack(request.head, 0, len(request.readable), request.writable)
        + request.readable[:header_bytes].ljust(header_bytes, b"\0")
        for request in requests
    )
    return entries, join_pieces([request.readable[header_bytes:] for request in requests])


def unpack_returned(body: Completions, payload: Sequence[Buffer]) -> list[Returned]:
    """What the guest's process makes of completions; all payload must be used up."""
    entries = list(COMPLETION.iter_unpack(body.completions))
    pieces = split_payload(payload, [length for _, _, _, length in entries])
    return [
        Returned(head, bytes(data), tail if has_tail else None)
        for (head, has_tail, tail, _), data in zip(entries, pieces, strict=True)
    ]


@dataclass
class Line:
    """An interrupt line: its level, and how often it rose."""

    level: bool = False
    rises: int = 0

    def __call__(self, level: bool) -> None:
        """Drive it."""
        self.rises += level and not self.level
        self.level = level


@dataclass
class Bench:
    """The device under test, its interception, and what a driver does.

    Args:
        function: What the device does.

    Attributes:
        sent: Everything that the flushes returned.
    """

    function: VirtioFunction
    line: Line = field(default_factory=Line)
    sent: list[Outgoing] = field(default_factory=list)
    generations: dict[int, int] = field(default_factory=dict)
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.host = DriverInterception(lambda: self.lines, count(1).__next__)
        self.device = VirtioMmio(NUMBER, BASE, self.function, self.line, self.host)
        self.host.add(self.device)

    # --- registers

    def read(self, register: int, width: int = 4) -> int:
        """Load."""
        return self.device.read(register, width, 0)

    def write(self, register: int, value: int, width: int = 4) -> None:
        """Store."""
        self.device.write(register, width, value, 0)

    def status(self, *bits: int) -> int:
        """Add bits to the status one after another; returns what it reads then."""
        for bit in bits:
            self.write(Register.STATUS, self.read(Register.STATUS) | bit)
        return self.read(Register.STATUS)

    def offered(self) -> int:
        """Both halves of DeviceFeatures."""
        halves = []
        for select in (0, 1):
            self.write(Register.DEVICE_FEATURES_SEL, select)
            halves.append(self.read(Register.DEVICE_FEATURES))
        return halves[1] << 32 | halves[0]

    def accept(self, features: int) -> None:
        """Both halves of DriverFeatures."""
        for select in (0, 1):
            self.write(Register.DRIVER_FEATURES_SEL, select)
            self.write(Register.DRIVER_FEATURES, features >> 32 * select & 0xFFFF_FFFF)

    def negotiate(self, features: int | None = None) -> int:
        """Steps 1 to 6 of initialisation (section 3.1.1); by default everything but the packed ring is accepted."""
        self.write(Register.STATUS, 0)
        self.status(ACKNOWLEDGE, DRIVER)
        self.accept(self.offered() & ~(1 << 34) if features is None else features)
        return self.status(FEATURES_OK)

    def set_up(self, queue: int, size: int = 64) -> None:
        """Give a queue its addresses and enable it."""
        self.write(Register.QUEUE_SEL, queue)
        self.write(Register.QUEUE_NUM, size)
        for at, register in enumerate((Register.QUEUE_DESC_LOW, Register.QUEUE_DRIVER_LOW, Register.QUEUE_DEVICE_LOW)):
            self.write(register, 0x8000_0000 + 0x1_0000 * queue + 0x4000 * at)
            self.write(register + 4, 0)
        self.write(Register.QUEUE_READY, 1)

    def start(self, features: int | None = None) -> Bench:
        """All of initialisation; the queues are armed afterwards, and the guest's process knows."""
        self.negotiate(features)
        for queue in range(len(self.device.queues)):
            self.set_up(queue)
        self.status(DRIVER_OK)
        self.flush()
        return self

    # --- the guest's process

    def flush(self) -> list[Outgoing]:
        """What leaves for the guest now; armed queues are noted."""
        outgoing = list(self.host.flush(0))
        self.sent += outgoing
        for body, _ in outgoing:
            if isinstance(body, ArmQueue):
                self.generations[body.queue] = body.generation
            elif isinstance(body, DisarmQueue):
                self.generations.pop(body.queue)
        return outgoing

    def bodies(self) -> list[Message]:
        """Messages of the flush now."""
        return [body for body, _ in self.flush()]

    def doorbell(
        self, queue: int, *requests: Offered, interrupt_at: int = NEVER, now_ns: int = 0, number: int = 0
    ) -> bool:
        """Offer requests; returns whether the message was well-formed."""
        entries, payload = pack_requests(requests, self.device.queues[queue].header_bytes)
        bell = Doorbell(NUMBER, queue, self.generations[queue], 1, interrupt_at, entries, number)
        return self.host.message(bell, payload, now_ns)

    def returned(self) -> list[Returned]:
        """Requests that come back with the flush now."""
        return [
            returned
            for body, payload in self.flush()
            if isinstance(body, Completions)
            for returned in unpack_returned(body, payload)
        ]


class Disk:
    """A disk backend that keeps its requests.

    Args:
        size_bytes: Capacity.
        block_bytes: Smallest unit.
        read_only: Whether it refuses writes.
    """

    def __init__(self, size_bytes: int = 1 << 30, block_bytes: int = 512, *, read_only: bool = False) -> None:
        self.size_bytes = size_bytes
        self.block_bytes = block_bytes
        self.read_only = read_only
        self.serial = "disk-of-alice"
        self.requests: list[DiskRequest] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.requests.append(request)

    def asked(self) -> list[tuple[Opcode, int, int]]:
        """What was asked for: opcode, offset, length."""
        return [(request.opcode, request.offset, request.length) for request in self.requests]


class BatchDisk(Disk):
    """A backend that takes batches, too.

    Attributes:
        handed_over: Sizes of what was handed over at once, 1 for single requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed_over: list[int] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        super().submit(request)
        self.handed_over.append(1)

    def submit_many(self, requests: Sequence[DiskRequest]) -> None:
        """Take a batch."""
        self.requests += requests
        self.handed_over.append(len(requests))


class Terminal:
    """A terminal that takes everything."""

    def transmit(self, data: bytes) -> None:
        """Take."""

    def space(self) -> int:
        """Room."""
        return 4096


def bench() -> Bench:
    """A device with two queues that nobody has touched."""
    return Bench(VirtioConsole(Terminal()))


class BlockBench(Bench):
    """A started virtio-blk with its disk.

    Args:
        disk: Its backend.
        features: What the driver accepts; by default everything but the packed ring.
        queues: Request queues.
    """

    def __init__(self, disk: Disk | None = None, features: int | None = None, queues: int = 1) -> None:
        self.disk = disk or Disk()
        self.blk = VirtioBlk(self.disk, queues=queues)
        super().__init__(self.blk)
        self.start(features)

    def ask(self, kind: int, sector: int = 0, data: bytes = b"", writable: int = 1, head: int = 0) -> list[Returned]:
        """Offer one request; returns what comes back at once."""
        assert self.doorbell(0, Offered(head, HEADER.pack(kind, 0, sector) + data, writable))
        return self.returned()

    def complete(self, status: CommandStatus = CommandStatus.OK, fill: bytes = b"\xa5") -> list[Returned]:
        """The backend completes all that it was asked for now; returns what comes back."""
        requests, self.disk.requests = self.disk.requests, []
        for request in requests:
            reads = request.opcode is Opcode.READ and status is CommandStatus.OK
            self.blk.complete(request.tag, status, fill * request.length if reads else b"", 0)
        return self.returned()


OK, IOERR, UNSUPP = (int(status) for status in BlockStatus)
LIVE = int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)
