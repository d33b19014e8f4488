"""Host-side disk driver: a virtual disk's requests as block commands."""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskClient, DiskRequest
from iovirt_dist.drivers.queue_pair import QueuePair, Request
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Status, UnitIdentity


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
        self._queue_pair = queue_pair
        self._unit = unit
        self._guest = guest
        self._queue = queue

    def attach(self, device: DiskClient | None, power_on_ns: int) -> None:
        """Say which virtual disk completions go to, and when its machine's time began."""
        self._device = device
        self._power_on_ns = power_on_ns

    def submit(self, request: DiskRequest) -> None:
        """Queue a request; where the queue is full it ends with QUEUE_FULL, like any other error, after this step."""
        self.requests += 1
        tag = request.tag

        def on_complete(status: Status, data: Buffer, now_ns: int) -> None:
            self.bytes_read += len(data)
            if self._device is not None:
                received = data if isinstance(data, bytes) else memoryview(data)
                self._device.complete(tag, status, received, now_ns - self._power_on_ns)

        self.bytes_written += len(request.data)
        id_ = RequestId(self._guest, self._queue, self.requests)
        length = len(request.data) or request.length
        command = Request(id_, request.opcode, self._unit, request.offset, length, request.data, on_complete)
        if not self._queue_pair.submit(command):
            self._queue_pair.refuse(command, Status.QUEUE_FULL)
