"""Host-side entropy driver: a virtual device's wish for random bytes as commands to an entropy controller.

What the controller refuses for want of room, or because the queue pair ended, is asked for again a few times; what the
source cannot give is the device's to hear. A device that has to do without an answer then asks again after a while.
"""

from __future__ import annotations

from typing import Final

from iovirt_dist.drivers.backend import EntropyClient, PatientClient
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status

RETRIES: Final = 3
"""How often one request is submitted again."""

RETRY_NS: Final = 1_000_000_000
"""Time from a failure to the next attempt of a device that waits."""

MAX_REQUEST_BYTES: Final = 65536
"""Most that one request asks for."""

_WORTH_A_RETRY: Final = frozenset({Status.QUEUE_FULL, Status.ABORTED})


class EntropyDriver:
    """The `EntropyBackend` of one guest's entropy device.

    Args:
        queue_pair: Way to the entropy controller.
        unit: Name of its source.
        guest: Instance number of the guest.
        queue: Queue number of this device within the guest.

    Attributes:
        requests: Requests that the device made.
        bytes_in: Random bytes that it got.
        errors: Requests that failed.
        retries: Commands submitted again.
        retry_ns: Monotonic time at which `flush` has something to try again, None for nothing.
    """

    def __init__(self, queue_pair: QueuePair, unit: str, guest: int, queue: int) -> None:
        self.requests = 0
        self.bytes_in = 0
        self.errors = 0
        self.retries = 0
        self.retry_ns: int | None = None
        self._device: EntropyClient | None = None
        self._power_on_ns = 0
        self._queue = queue_pair.device_queue(unit, guest, queue, self)
        self._attempts: dict[int, int] = {}

    def attach(self, device: EntropyClient | None, power_on_ns: int) -> None:
        """Say which virtual device random bytes go to, and when its machine's time began."""
        self._device = device
        self._power_on_ns = power_on_ns
        self.retry_ns = None

    def flush(self, now_ns: int) -> None:
        """Let a device that waits ask again, once it is time."""
        if self.retry_ns is None or now_ns < self.retry_ns:
            return
        self.retry_ns = None
        if isinstance(self._device, PatientClient):
            self._device.ask_again()

    def request(self, tag: int, length: int) -> None:
        """Ask for bytes, 1 <= length <= 65536; where the queue is full the request fails after this step."""
        self.requests += 1
        self._queue.submit(tag, Opcode.ENTROPY_GET, 0, min(length, MAX_REQUEST_BYTES))

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Tell the device, or ask again; a controller that gives nothing or too much has failed."""
        device, tag = self._device, request.tag
        if device is None:
            return
        if status in _WORTH_A_RETRY and self._may_retry(tag):
            self.retries += 1
            if self._queue.offer(tag, Opcode.ENTROPY_GET, 0, request.length):
                return
        self._attempts.pop(tag, None)
        if status is Status.OK and not 0 < len(data) <= request.length:
            status = Status.MEDIUM_ERROR
        if status is Status.OK:
            self.bytes_in += len(data)
            received = memoryview(data) if isinstance(data, bytearray) else data
            device.supply(tag, status, received, now_ns - self._power_on_ns)
        else:
            self.errors += 1
            if isinstance(device, PatientClient) and self.retry_ns is None:
                self.retry_ns = now_ns + RETRY_NS
            device.supply(tag, status, b"", now_ns - self._power_on_ns)

    def _may_retry(self, tag: int) -> bool:
        attempts = self._attempts.get(tag, 0)
        self._attempts[tag] = attempts + 1
        return attempts < RETRIES
