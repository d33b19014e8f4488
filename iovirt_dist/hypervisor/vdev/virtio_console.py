"""The virtio console device (VIRTIO 1.2, section 5.3) with one port, in front of a terminal backend."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from iovirt_dist.drivers.backend import TerminalBackend
from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.hypervisor.vdev.virtio_function import FunctionPort
from iovirt_dist.virtio.console import EMERGENCY_WRITE_OFFSET, RECEIVE, TRANSMIT, ConsoleConfig, ConsoleFeature
from iovirt_dist.virtio.features import DeviceId, mask
from iovirt_dist.wire.requests import QueueRequest

QUEUE_SIZE = 256
"""Entries: what User-Mode Linux asks for, whatever the device offers."""
MAX_HELD_BYTES = 1 << 20
"""Most output that waits for the terminal; what exceeds it is lost, as on an overrun line."""


class VirtioConsole:
    """A virtio-console function; a `VirtioFunction` and a `TerminalClient`.

    Output goes to the backend as far as that has space, and its buffers go back once it has taken them; input goes to
    the buffers that the driver provided, and what does not fit stays with the caller.

    Args:
        backend: The terminal.

    Attributes:
        bytes_out: Bytes that the terminal took.
        bytes_in: Bytes that went to the driver.
        lost_bytes: Output beyond `MAX_HELD_BYTES`, and emergency output without space.
    """

    device_id = int(DeviceId.CONSOLE)
    features = mask(ConsoleFeature.EMERG_WRITE)
    queue_sizes: Sequence[int] = (QUEUE_SIZE, QUEUE_SIZE)
    header_bytes: Sequence[int] = (0, 0)

    def __init__(self, backend: TerminalBackend) -> None:
        self.config = ConsoleConfig().pack()
        self.bytes_out = self.bytes_in = self.lost_bytes = 0
        self._backend = backend
        self._buffers: deque[tuple[int, int]] = deque()
        self._held: deque[tuple[int, bytes]] = deque()
        self._held_bytes = 0

    def connect(self, port: FunctionPort) -> None:
        """Learn the transport."""
        self._port = port
        self._input, self._output = port.queues[RECEIVE], port.queues[TRANSMIT]

    def enable(self, features: int) -> None:
        """Nothing depends on what was negotiated."""

    def reset(self) -> None:
        """Nothing is left once the queues were stopped."""

    def stop(self, queue: int) -> None:
        """Forget buffers, or output that the terminal has not taken."""
        if queue == RECEIVE:
            self._buffers.clear()
        else:
            self._held.clear()
            self._held_bytes = 0

    def requests(self, queue: int, batch: list[QueueRequest], now_ns: int) -> None:
        """Take buffers for input, or output (section 5.3.6)."""
        if queue == RECEIVE:
            if not all(request.writable for request in batch):
                self._port.needs_reset("console-buffer")
                return
            self._buffers += [(request.head, request.writable) for request in batch]
            return
        for request in batch:
            data = bytes(request.data[: MAX_HELD_BYTES - self._held_bytes])
            self.lost_bytes += len(request.data) - len(data)
            self._held.append((request.head, data))
            self._held_bytes += len(data)
        self._transmit()

    def receive(self, data: bytes, now_ns: int) -> int:
        """Put what was typed into the driver's buffers; returns how many bytes fitted."""
        at = 0
        while at < len(data) and self._buffers:
            head, room = self._buffers.popleft()
            self._input.complete(head, data[at : at + room])
            at += room
        taken = min(at, len(data))
        self.bytes_in += taken
        return taken

    def resume(self, now_ns: int) -> None:
        """The terminal has space again."""
        self._transmit()

    def write_config(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Emergency write (section 5.3.5.1): one character, at any time, even before the device is set up."""
        if offset == EMERGENCY_WRITE_OFFSET:
            if self._backend.space() > 0:
                self._backend.transmit(bytes((value & 0xFF,)))
                self.bytes_out += 1
            else:
                self.lost_bytes += 1

    def _transmit(self) -> None:
        """Hand on what the terminal takes. Its space is asked for until it is 0: then it says when there is more."""
        while self._held:
            head, data = self._held[0]
            space = self._backend.space() if data else 0
            if data and space <= 0:
                return
            taken = data[:space]
            if taken:
                self._backend.transmit(taken)
                self.bytes_out += len(taken)
                self._held_bytes -= len(taken)
            if len(taken) < len(data):
                self._held[0] = (head, data[space:])
            else:
                self._held.popleft()
                self._output.complete(head)

    def state(self) -> State:
        """Buffers of the driver, output that is held, counts."""
        return {
            "buffers": [list(buffer) for buffer in self._buffers],
            "held": [list(output) for output in self._held],
            "counts": [self.bytes_out, self.bytes_in, self.lost_bytes],
        }

    def restore(self, state: State) -> None:
        """Take over a state."""
        self._buffers = deque((head, room) for head, room in state["buffers"])
        self._held = deque((head, data) for head, data in state["held"])
        self._held_bytes = sum(len(data) for _, data in self._held)
        self.bytes_out, self.bytes_in, self.lost_bytes = state["counts"]
