"""The virtio entropy device (VIRTIO 1.2, section 5.4) in front of an entropy backend."""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.drivers.backend import EntropyBackend
from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.hypervisor.vdev.virtio_function import FunctionPort
from iovirt_dist.virtio.entropy import REQUEST
from iovirt_dist.virtio.features import DeviceId
from iovirt_dist.wire.commands import Status
from iovirt_dist.wire.requests import QueueRequest

QUEUE_SIZE = 256
"""Entries: what User-Mode Linux asks for, whatever the device offers."""
MAX_REQUEST_BYTES = 65536
"""Most that is asked of the backend at once; the device may fill less than a buffer (section 5.4.6.2)."""


class VirtioRng:
    """A virtio-rng function; a `VirtioFunction`, an `EntropyClient` and a `PatientClient`.

    What the backend cannot serve waits until it can: no buffer may come back without a byte in it (section 5.4.6.2),
    and Linux's driver would wait for ever for what it takes to be under way.

    Args:
        backend: The source.

    Attributes:
        bytes_in: Random bytes that went to the driver.
        failed: How often the backend could not serve a request.
    """

    device_id = int(DeviceId.ENTROPY)
    features = 0
    queue_sizes: Sequence[int] = (QUEUE_SIZE,)
    header_bytes: Sequence[int] = (0,)

    def __init__(self, backend: EntropyBackend) -> None:
        self.config = b""
        self.bytes_in = self.failed = 0
        self._backend = backend
        self._in_flight: dict[int, int] = {}
        self._unserved: set[int] = set()

    def connect(self, port: FunctionPort) -> None:
        """Learn the transport."""
        self._port = port
        self._queue = port.queues[REQUEST]

    def enable(self, features: int) -> None:
        """There are no features."""

    def reset(self) -> None:
        """Nothing is left once the queue was stopped."""

    def stop(self, queue: int) -> None:
        """Forget what is in flight."""
        self._in_flight.clear()
        self._unserved.clear()

    def requests(self, queue: int, batch: list[QueueRequest], now_ns: int) -> None:
        """Ask the backend for each buffer's bytes; one that holds none cannot get the one byte that it must."""
        life = self._queue.generation << 16
        for request in batch:
            if not request.writable:
                self._port.needs_reset("entropy-buffer")
                return
            length = min(request.writable, MAX_REQUEST_BYTES)
            self._in_flight[life | request.head] = length
            self._backend.request(life | request.head, length)

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take random bytes; those of a request that is not outstanding (stopped since) are ignored."""
        length = self._in_flight.get(tag)
        if length is None:
            return
        if status is not Status.OK or not 0 < len(data) <= length:
            self.failed += 1
            self._unserved.add(tag)
            return
        del self._in_flight[tag]
        self._unserved.discard(tag)
        self.bytes_in += len(data)
        self._queue.complete(tag & 0xFFFF, data)

    def ask_again(self) -> None:
        """Ask once more for what the backend could not serve."""
        unserved, self._unserved = sorted(self._unserved), set()
        for tag in unserved:
            self._backend.request(tag, self._in_flight[tag])

    def write_config(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """There is no configuration."""

    def state(self) -> State:
        """What is in flight, counts."""
        in_flight = [list(request) for request in self._in_flight.items()]
        return {"in_flight": in_flight, "bytes_in": self.bytes_in, "failed": self.failed}

    def restore(self, state: State) -> None:
        """Take over a state; what was in flight is asked for once more."""
        self._in_flight, self._unserved = dict(state["in_flight"]), set()
        self.bytes_in, self.failed = state["bytes_in"], state["failed"]
        for tag, length in self._in_flight.items():
            self._backend.request(tag, length)
