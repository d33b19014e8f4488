"""Host-side disk driver: a virtual disk's requests as block commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iovirt_dist.drivers.backend import BatchClient, DiskClient, DiskRequest, GrowingClient
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity
from iovirt_dist.wire.payload import split_payload

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
        self._identity = identity
        self._device: DiskClient | None = None
        self._batches: BatchClient | None = None
        self._power_on_ns = 0
        self.requests = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self._queue = queue_pair.device_queue(unit, guest, queue, self)

    def attach(self, device: DiskClient | None, power_on_ns: int) -> None:
        """Say which virtual disk completions go to, and when its machine's time began."""
        self._device = device
        self._batches = device if isinstance(device, BatchClient) else None
        self._queue.batches = None if self._batches is None else self
        self._power_on_ns = power_on_ns

    def follow_size(self) -> None:
        """Let the device have a disk that has grown, if it can; others see it when their machine is built anew.

        A disk that has shrunk is left as it was: what is beyond its end fails.
        """
        identity = self._queue.unit.identity
        if identity is None or identity is self._identity:
            return
        self._identity = identity
        if identity.size_bytes > self.size_bytes and isinstance(self._device, GrowingClient):
            self.size_bytes = identity.size_bytes
            self._device.grown(identity.size_bytes)

    def submit(self, request: DiskRequest) -> None:
        """Queue a request; where the queue is full it ends with QUEUE_FULL, like any other error, after this step."""
        self.requests += 1
        data = request.data
        self.bytes_written += len(data)
        self._queue.submit(request.tag, request.opcode, request.offset, len(data) or request.length, data)

    def submit_many(self, requests: Sequence[DiskRequest]) -> None:
        """Queue requests in their order, as `submit` does each."""
        self.requests += len(requests)
        self.bytes_written += sum([len(request.data) for request in requests])
        self._queue.submit_many(requests)

    def succeeded_many(
        self, requests: Sequence[Request], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int
    ) -> None:
        """Tell the device of all at once if it likes that and everything is as it was asked for, else one by one."""
        wanted = [request.length if request.opcode is _READ else 0 for request in requests]
        if self._batches is not None and wanted == lengths:
            self.bytes_read += sum(wanted)
            self._batches.succeed_many(
                [request.tag for request in requests], wanted, frames, now_ns - self._power_on_ns
            )
            return
        for request, data in zip(requests, split_payload(frames, lengths), strict=True):
            self.completed(request, _OK, data, now_ns)

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
