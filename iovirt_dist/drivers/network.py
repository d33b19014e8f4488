"""Host-side network driver: a virtual card's frames as commands to a switch.

Frames that the guest sends in one step are commands of one batch. Receives are parked at the switch, several of them,
so that a burst of frames is one batch, too; each is parked again as soon as it brought a frame. The link is up while
the switch is in reach and knows the port. What a full queue, a switch that went away or a machine that is switched off
costs is frames, never more: they are counted, and nothing is sent twice. The driver outlives the machine, as receives
that are parked for a machine that is gone would swallow frames of its next life.
"""

from __future__ import annotations

from typing import Final

from iovirt_dist.drivers.backend import NetworkClient
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_FRAME_BYTES, MIN_FRAME_BYTES, Opcode, Status

RECEIVES: Final = 8
"""Receives parked per port."""

TRANSMITS: Final = 256
"""Frames on their way to the switch; what comes on top is dropped, as by a card whose ring is full."""

RETRY_NS: Final = 1_000_000_000
"""Time from a receive that failed to the next one."""


class NetworkDriver:
    """The `NetworkBackend` of one guest's card.

    Args:
        queue_pair: Way to the switch.
        unit: Name of the port.
        mac: The card's address, 6 bytes.
        mtu: Largest payload of a frame, bytes.
        guest: Instance number of the guest.
        queue: Queue number for transmit; receive takes the next one.

    Attributes:
        frames_out: Frames that the switch took.
        bytes_out: Their bytes.
        frames_in: Frames that the switch brought.
        bytes_in: Their bytes.
        dropped_out: Frames that did not reach the switch, or that it refused.
        dropped_in: Frames that no machine took.
        errors: Receives that failed.
        link_up: What the card was last told.
        retry_ns: Monotonic time at which `flush` has something to try again, None for nothing.
    """

    def __init__(self, queue_pair: QueuePair, unit: str, mac: bytes, mtu: int, guest: int, queue: int) -> None:
        self.mac = mac
        self.mtu = mtu
        self.link_up = False
        self.frames_out = self.bytes_out = self.frames_in = self.bytes_in = 0
        self.dropped_out = self.dropped_in = self.errors = 0
        self.retry_ns: int | None = None
        self._pair = queue_pair
        self._device: NetworkClient | None = None
        self._power_on_ns = 0
        self._transmits = queue_pair.device_queue(unit, guest, queue, self)
        self._receives = queue_pair.device_queue(unit, guest, queue + 1, self)
        self._sending = 0
        self._parked = 0

    def attach(self, device: NetworkClient | None, power_on_ns: int) -> None:
        """Say which virtual card this is now, None while the machine is down, and when its time began."""
        self._device = device
        self._power_on_ns = power_on_ns

    def transmit(self, frame: Buffer) -> None:
        """Take a frame that the guest sent; it leaves with the batch of this step, or is dropped."""
        size = len(frame)
        if (
            self._sending < TRANSMITS
            and self.link_up
            and MIN_FRAME_BYTES <= size <= MAX_FRAME_BYTES
            and self._transmits.offer(0, Opcode.NET_TRANSMIT, 0, size, frame)
        ):
            self._sending += 1
        else:
            self.dropped_out += 1

    def follow_link(self, now_ns: int) -> None:
        """Look whether the switch is there, and tell the card if that has changed."""
        up = self._pair.connected and self._transmits.unit.number is not None
        if up != self.link_up:
            self.link_up = up
            if self._device is not None:
                self._device.link_changed(up, now_ns - self._power_on_ns)

    def flush(self, now_ns: int) -> None:
        """Follow the link; park receives, unless one failed less than `RETRY_NS` ago."""
        self.follow_link(now_ns)
        if self._parked == RECEIVES or (self.retry_ns is not None and now_ns < self.retry_ns):
            return
        self.retry_ns = None
        while self._parked < RECEIVES:
            if not self._receives.offer(0, Opcode.NET_RECEIVE, 0, MAX_FRAME_BYTES):
                self.retry_ns = now_ns + RETRY_NS
                return
            self._parked += 1

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Take the outcome of a transmit, or a frame."""
        if request.opcode is Opcode.NET_TRANSMIT:
            self._sending -= 1
            if status is Status.OK:
                self.frames_out += 1
                self.bytes_out += request.length
            else:
                self.dropped_out += 1
        else:
            self._parked -= 1
            if status is Status.OK and MIN_FRAME_BYTES <= len(data) <= MAX_FRAME_BYTES:
                self._received(data, now_ns)
            else:
                self.errors += 1
                self.retry_ns = now_ns + RETRY_NS

    def _received(self, frame: Buffer, now_ns: int) -> None:
        self.frames_in += 1
        self.bytes_in += len(frame)
        device = self._device
        if device is None or not device.receive(frame, now_ns - self._power_on_ns):
            self.dropped_in += 1
        if self._receives.offer(0, Opcode.NET_RECEIVE, 0, MAX_FRAME_BYTES):
            self._parked += 1
        else:
            self.retry_ns = now_ns + RETRY_NS
