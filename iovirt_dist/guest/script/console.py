"""A virtio console driver for scripts (VIRTIO 1.2, section 5.3): port 0, which every console has."""

from __future__ import annotations

from iovirt_dist.guest.script.transport import DriverQueue, VirtioDevice, take_used
from iovirt_dist.virtio.console import RECEIVE, TRANSMIT
from iovirt_dist.virtio.features import DeviceId
from iovirt_dist.virtio.ring import DriverRing, driver_ring

BUFFER_BYTES = 1024
RECEIVE_BUFFERS = 8
QUEUE_SIZE = 16


class Console:
    """A console that is ready; made by `open_console`.

    Attributes:
        device: Its transport.
    """

    def __init__(
        self, device: VirtioDevice, receive: DriverQueue[DriverRing], transmit: DriverQueue[DriverRing]
    ) -> None:
        guest = device.guest
        self.device = device
        self._receive = receive
        self._transmit = transmit
        self._output = guest.allocate(BUFFER_BYTES)
        self._buffers: dict[int, int] = {}
        self._input = b""
        for _ in range(min(RECEIVE_BUFFERS, receive.setup.size)):
            self._offer(guest.allocate(BUFFER_BYTES))

    def _offer(self, buffer: int) -> None:
        self._buffers[self._receive.ring.add([], [(buffer, BUFFER_BYTES)])] = buffer

    def go(self) -> None:
        """Let the device go; for `open_console`."""
        self.device.go()
        self._receive.notify()

    async def write(self, data: bytes) -> None:
        """Transmit, and wait until the device has taken all of it. One task at a time.

        Raises:
            DeviceError: The device needs a reset.
        """
        memory = self.device.guest.memory
        for at in range(0, len(data), BUFFER_BYTES):
            piece = data[at : at + BUFFER_BYTES]
            memory.write(self._output, piece)
            self._transmit.ring.add([(self._output, len(piece))], [])
            self._transmit.notify()
            await take_used(self._transmit)

    async def read(self) -> bytes:
        """Wait for input and return what is there, at least one byte; raises as `write` does. One task at a time."""
        memory = self.device.guest.memory
        while not self._input:
            used = await take_used(self._receive)
            buffers = [self._buffers.pop(head) for head, _ in used]  # all of them first: `_offer` uses numbers again
            for buffer, (_, length) in zip(buffers, used, strict=True):
                self._input += memory.read(buffer, min(length, BUFFER_BYTES))
                self._offer(buffer)
            self._receive.notify()
        data, self._input = self._input, b""
        return data

    async def read_line(self) -> bytes:
        r"""Wait for input up to CR or LF and return it without that; raises as `write` does. One task at a time."""
        line = b""
        while True:
            data = await self.read()
            end = next((at for at, byte in enumerate(data) if byte in b"\r\n"), None)
            if end is not None:
                self._input = data[end + 1 :]
                return line + data[:end]
            line += data


async def open_console(device: VirtioDevice, *, interrupts: bool = False, features: int = 0) -> Console:
    """Negotiate with a console and make it ready; arguments and errors as in `guest.script.disk.open_disk`."""
    await device.start(DeviceId.CONSOLE, features, interrupts=interrupts)
    receive = await device.queue(RECEIVE, QUEUE_SIZE, driver_ring)
    transmit = await device.queue(TRANSMIT, QUEUE_SIZE, driver_ring)
    console = Console(device, receive, transmit)
    console.go()
    return console
