"""Host-side disk driver: a virtual disk's requests as block commands."""

from __future__ import annotations

from typing import Final

from iovirt_dist.drivers.backend import DiskClient, DiskRequest
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity

_READ: Final = Opcode.READ  # an attribute of an enumeration costs as much as a call
_OK: Final = Status.OK


class DiskDriver:
    """The `DiskBackend` of one guest's disk.

    Args:
        queue_pair: Way to the block controller.
        unit: Name of the extent.
        identity: What the controller told of it.
        guest: Instance number of the guest.
        queue: Queue number of this disk within the guest.
    """

    def __init__(self, queue_pair: QueuePair, unit: str, identity: UnitIdentity, guest: int, queue: int) -> None:
        self.size_bytes = identity.size_bytes
        self.block_bytes = identity.block_bytes
        self.read_only = identity.read_only
        self.serial = identity.serial
        self._device: DiskClient | None = None
        self._power_on_ns = 0
        self.requests = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self._queue = queue_pair.device_queue(unit, guest, queue, self)

    def attach(self, device: DiskClient | None, power_on_ns: int) -> None:
        """Say which virtual disk completions go to, and when its machine's time began."""
        self._device = device
        self._power_on_ns = power_on_ns

    def submit(self, request: DiskRequest) -> None:
        """Queue a request; where the queue is full it ends with QUEUE_FULL, like any other error, after this step."""
        self.requests += 1
        data = request.data
        self.bytes_written += len(data)
        self._queue.submit(request.tag, request.opcode, request.offset, len(data) or request.length, data)

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Tell the device; a read that brings another number of bytes than it asked for has failed."""
        device = self._device
        if device is None:
            return
        reading = request.opcode is _READ
        if reading and status is _OK and len(data) == request.length:
            self.bytes_read += len(data)
            received = memoryview(data) if isinstance(data, bytearray) else data
            device.complete(request.tag, status, received, now_ns - self._power_on_ns)
            return
        if reading and status is _OK:
            status = Status.MEDIUM_ERROR
        device.complete(request.tag, status, b"", now_ns - self._power_on_ns)
