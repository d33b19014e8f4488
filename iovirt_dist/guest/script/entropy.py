"""A virtio entropy driver for scripts (VIRTIO 1.2, section 5.4)."""

from __future__ import annotations

from iovirt_dist.guest.script.transport import DriverQueue, VirtioDevice, take_used
from iovirt_dist.virtio.entropy import REQUEST
from iovirt_dist.virtio.features import DeviceId
from iovirt_dist.virtio.ring import DriverRing, driver_ring

BUFFER_BYTES = 4096
QUEUE_SIZE = 4


class Entropy:
    """An entropy device that is ready; made by `open_entropy`.

    Attributes:
        device: Its transport.
    """

    def __init__(self, device: VirtioDevice, queue: DriverQueue[DriverRing]) -> None:
        self.device = device
        self._queue = queue
        self._buffer = device.guest.allocate(BUFFER_BYTES)

    async def read(self, length: int) -> bytes:
        """Return so many random bytes, in as many requests as it takes. One task at a time.

        Raises:
            DeviceError: The device needs a reset.
        """
        memory = self.device.guest.memory
        data = b""
        while len(data) < length:
            wanted = min(length - len(data), BUFFER_BYTES)
            self._queue.ring.add([], [(self._buffer, wanted)])
            self._queue.notify()
            for _, written in await take_used(self._queue):
                data += memory.read(self._buffer, min(written, wanted))
        return data


async def open_entropy(device: VirtioDevice, *, interrupts: bool = False, features: int = 0) -> Entropy:
    """Negotiate with an entropy device and make it ready; arguments and errors as in `guest.script.disk.open_disk`."""
    await device.start(DeviceId.ENTROPY, features, interrupts=interrupts)
    entropy = Entropy(device, await device.queue(REQUEST, QUEUE_SIZE, driver_ring))
    device.go()
    return entropy
