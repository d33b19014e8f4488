"""Host-side console driver: a virtual UART's bytes as console commands.

Bytes are gathered while a transmit command is in flight, so a guest that prints a character at a time costs one
command for all that it printed meanwhile. One receive command is always parked at the controller; it completes when
somebody types.
"""

from __future__ import annotations

from iovirt_dist.drivers.backend import TerminalClient
from iovirt_dist.drivers.queue_pair import QueuePair, Request
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status

BUFFER_BYTES = 4096
"""Most that waits for the controller; beyond it the UART holds its transmitter back."""

RECEIVE_BYTES = 256
"""Most that one receive command brings."""


class TerminalDriver:
    """The `TerminalBackend` of one guest's console.

    Args:
        queue_pair: Way to the console controller.
        unit: Name of the terminal.
        guest: Instance number of the guest.
        queue: Queue number for transmit; receive takes the next one.
    """

    def __init__(self, queue_pair: QueuePair, unit: str, guest: int, queue: int) -> None:
        self._device: TerminalClient | None = None
        self._power_on_ns = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self._queue_pair = queue_pair
        self._unit = unit
        self._transmit_id = RequestId(guest, queue, 0)
        self._receive_id = RequestId(guest, queue + 1, 0)
        self._gathered = bytearray()
        self._in_flight_bytes = 0
        self._starved = False
        self._typed = b""
        self._receiving = False

    def attach(self, device: TerminalClient | None, power_on_ns: int) -> None:
        """Say which virtual terminal this is now, None while the machine is down, and when its time began."""
        self._device = device
        self._power_on_ns = power_on_ns
        self.feed(power_on_ns)

    def transmit(self, data: bytes) -> None:
        """Take bytes that the guest sent; beyond `space` they are dropped, as on an overrun line."""
        self._gathered += data[: self.space()]

    def space(self) -> int:
        """Bytes that `transmit` takes now."""
        space = BUFFER_BYTES - len(self._gathered) - self._in_flight_bytes
        self._starved = self._starved or space <= 0
        return max(space, 0)

    def flush(self) -> None:
        """Hand to the controller what was gathered, unless a transmit is under way; park a receive."""
        if self._gathered and not self._in_flight_bytes:
            data = bytes(self._gathered)
            self._gathered.clear()
            self._transmit_id = self._next(self._transmit_id)
            if self._submit(self._transmit_id, Opcode.CONSOLE_TRANSMIT, len(data), data):
                self._in_flight_bytes = len(data)
                self.bytes_out += len(data)
        if not self._receiving and not self._typed:
            self._receive_id = self._next(self._receive_id)
            self._receiving = self._submit(self._receive_id, Opcode.CONSOLE_RECEIVE, RECEIVE_BYTES, b"")

    def feed(self, now_ns: int) -> None:
        """Give the device as much of what was typed as it takes."""
        if self._typed and self._device is not None:
            self._typed = self._typed[self._device.receive(self._typed, now_ns - self._power_on_ns) :]

    @staticmethod
    def _next(id_: RequestId) -> RequestId:
        return id_._replace(sequence=id_.sequence + 1)

    def _submit(self, id_: RequestId, opcode: Opcode, length: int, data: bytes) -> bool:
        done = self._received if opcode is Opcode.CONSOLE_RECEIVE else self._transmitted
        return self._queue_pair.submit(Request(id_, opcode, self._unit, 0, length, data, done))

    def _transmitted(self, status: Status, data: Buffer, now_ns: int) -> None:  # noqa: ARG002 - the callback's signature
        self._in_flight_bytes = 0
        if self._starved and self._device is not None:
            self._starved = False
            self._device.resume(now_ns - self._power_on_ns)

    def _received(self, status: Status, data: Buffer, now_ns: int) -> None:
        self._receiving = False
        if status is Status.OK:
            self.bytes_in += len(data)
            self._typed += bytes(data)
            self.feed(now_ns)
