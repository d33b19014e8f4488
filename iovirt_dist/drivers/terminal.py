"""Host-side console driver: a virtual UART's bytes as console commands.

Bytes are gathered while a transmit command is in flight, so a guest that prints a character at a time costs one
command for all that it printed meanwhile. One receive command is always parked at the controller; it completes when
somebody types. What fails is tried again after a second, not at once: hypervisor and controller would spin. Bytes
that a full queue or an ended queue pair sent back are kept for that; bytes that the terminal refused are lost, as on
an unplugged line, and counted.
"""

from __future__ import annotations

from iovirt_dist.drivers.backend import TerminalClient
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status

BUFFER_BYTES = 4096
"""Most that waits for the controller; beyond it the UART holds its transmitter back."""

RECEIVE_BYTES = 256
"""Most that one receive command brings."""

RETRY_NS = 1_000_000_000
"""Time from a failed command to the next one of its kind."""

_WORTH_A_RETRY = frozenset({Status.QUEUE_FULL, Status.ABORTED})


class TerminalDriver:
    """The `TerminalBackend` of one guest's console.

    Args:
        queue_pair: Way to the console controller.
        unit: Name of the terminal.
        guest: Instance number of the guest.
        queue: Queue number for transmit; receive takes the next one.

    Attributes:
        bytes_out: Bytes that the controller took.
        bytes_in: Bytes that were typed.
        lost_bytes: Bytes that the terminal refused.
        errors: Commands that failed.
        retry_ns: Monotonic time at which `flush` has something to try again, None for nothing.
    """

    def __init__(self, queue_pair: QueuePair, unit: str, guest: int, queue: int) -> None:
        self.bytes_out = 0
        self.bytes_in = 0
        self.lost_bytes = 0
        self.errors = 0
        self.retry_ns: int | None = None
        self._device: TerminalClient | None = None
        self._power_on_ns = 0
        self._transmits = queue_pair.device_queue(unit, guest, queue, self)
        self._receives = queue_pair.device_queue(unit, guest, queue + 1, self)
        self._gathered = bytearray()
        self._in_flight = b""
        self._transmit_from_ns = self._receive_from_ns = 0
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
        space = BUFFER_BYTES - len(self._gathered) - len(self._in_flight)
        self._starved = self._starved or space <= 0
        return max(space, 0)

    def flush(self, now_ns: int) -> None:
        """Hand to the controller what was gathered, unless a transmit is under way; park a receive.

        Args:
            now_ns: Monotonic time; what failed less than `RETRY_NS` ago waits.
        """
        if self._gathered and not self._in_flight and now_ns >= self._transmit_from_ns:
            data = bytes(self._gathered)
            if self._transmits.offer(0, Opcode.CONSOLE_TRANSMIT, 0, len(data), data):
                self._in_flight = data
                self._gathered.clear()
            else:
                self._transmit_from_ns = now_ns + RETRY_NS
        if not self._receiving and not self._typed and now_ns >= self._receive_from_ns:
            self._receiving = self._receives.offer(0, Opcode.CONSOLE_RECEIVE, 0, RECEIVE_BYTES)
            if not self._receiving:
                self._receive_from_ns = now_ns + RETRY_NS
        if self._transmit_from_ns or self._receive_from_ns:
            self._set_retry(now_ns)

    def feed(self, now_ns: int) -> None:
        """Give the device as much of what was typed as it takes."""
        if self._typed and self._device is not None:
            self._typed = self._typed[self._device.receive(self._typed, now_ns - self._power_on_ns) :]

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Take the outcome of the transmit or the receive that was under way."""
        if request.opcode is Opcode.CONSOLE_RECEIVE:
            self._received(status, data, now_ns)
        else:
            self._transmitted(status, now_ns)

    def _set_retry(self, now_ns: int) -> None:
        """Forget times that have passed; the earliest of the others is when to come back."""
        if self._transmit_from_ns <= now_ns:
            self._transmit_from_ns = 0
        if self._receive_from_ns <= now_ns:
            self._receive_from_ns = 0
        self.retry_ns = min((at for at in (self._transmit_from_ns, self._receive_from_ns) if at), default=None)

    def _transmitted(self, status: Status, now_ns: int) -> None:
        sent, self._in_flight = self._in_flight, b""
        if status is Status.OK:
            self.bytes_out += len(sent)
        else:
            self.errors += 1
            self._transmit_from_ns = now_ns + RETRY_NS
            self._set_retry(now_ns)
            if status in _WORTH_A_RETRY:
                self._gathered[:0] = sent
                return
            self.lost_bytes += len(sent)
        if self._starved and self._device is not None:
            self._starved = False
            self._device.resume(now_ns - self._power_on_ns)

    def _received(self, status: Status, data: Buffer, now_ns: int) -> None:
        """Take what was typed; success without data is a controller's error, too."""
        self._receiving = False
        if status is Status.OK and data:
            typed = bytes(data[:RECEIVE_BYTES])
            self.bytes_in += len(typed)
            self._typed += typed
            self.feed(now_ns)
        else:
            self.errors += 1
            self._receive_from_ns = now_ns + RETRY_NS
            self._set_retry(now_ns)
