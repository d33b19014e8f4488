"""The virtio network device (VIRTIO 1.2, section 5.1) in front of a network backend: one queue pair, no offloads."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from iovirt_dist.drivers.backend import NetworkBackend
from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.hypervisor.vdev.virtio_function import FunctionPort
from iovirt_dist.hypervisor.vdev.virtio_queue import NOT_ARMED
from iovirt_dist.virtio.features import DeviceId, has, mask
from iovirt_dist.virtio.network import (
    HEADER,
    HEADER_BYTES,
    RECEIVE,
    TRANSMIT,
    LinkStatus,
    NetworkConfig,
    NetworkFeature,
)
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.requests import QueueRequest

QUEUE_SIZE = 256
ETHERNET_HEADER_BYTES = 14
HELD_FRAMES = 16
"""Frames that wait for the driver's buffers; the newest ones stay."""
WANT_NS = 10_000_000
"""How soon the ring is looked at again for buffers if there were none."""
MAX_FRAME_BYTES = 65535 + ETHERNET_HEADER_BYTES
"""Longest frame that is passed on; no MTU is greater than 65535 (section 5.1.4.1)."""
_PLAIN_HEADER = HEADER.pack(0, 0, 0, 0, 0, 0, 1)
"""In front of a received frame: no offloads, one buffer (section 5.1.6.4.1)."""


class VirtioNet:
    """A virtio-net function; a `VirtioFunction` and a `NetworkClient`.

    Some drivers put buffers back and ring no doorbell (U-Boot's), as a device that shares their memory sees them all
    the same. So a frame that finds no buffer is held while the ring is looked at.

    A driver that negotiated MRG_RXBUF has a frame that is larger than a buffer in as many as it takes, all of which it
    finds used at once.

    Transmitted frames are complete when the backend has them, whatever becomes of them there, as on any Ethernet.

    Args:
        backend: What the frames go to; its `link_up` at reset is the link's state.

    Attributes:
        frames_out: Frames that went to the backend.
        bytes_out: Their bytes, without virtio header.
        frames_in: Frames that went to the driver.
        bytes_in: Their bytes.
        dropped_out: Frames that were too short, too long, or sent without a link.
        dropped_in: Received frames for which the driver had no buffer for too long, or too little room.
    """

    device_id = int(DeviceId.NETWORK)
    features = mask(NetworkFeature.MAC, NetworkFeature.STATUS, NetworkFeature.MTU, NetworkFeature.MRG_RXBUF)
    queue_sizes: Sequence[int] = (QUEUE_SIZE, QUEUE_SIZE)
    header_bytes: Sequence[int] = (0, HEADER_BYTES)

    def __init__(self, backend: NetworkBackend) -> None:
        self._backend = backend
        self._link_up = backend.link_up
        self._negotiated = 0
        self._buffers: deque[tuple[int, int]] = deque()
        self._held: deque[bytes] = deque()
        self._wanted_ns = -WANT_NS
        self.frames_out = self.bytes_out = self.frames_in = self.bytes_in = self.dropped_out = self.dropped_in = 0
        self.config = self._pack()

    def _pack(self) -> bytes:
        status = LinkStatus.LINK_UP if self._link_up else 0
        return NetworkConfig(mac=self._backend.mac, status=int(status), mtu=self._backend.mtu).pack()

    def connect(self, port: FunctionPort) -> None:
        """Learn the transport."""
        self._port = port
        self._input, self._output = port.queues[RECEIVE], port.queues[TRANSMIT]

    def enable(self, features: int) -> None:
        """Note what was negotiated."""
        self._negotiated = features

    def reset(self) -> None:
        """Nothing is negotiated; the link stays as it is."""
        self._negotiated = 0

    def stop(self, queue: int) -> None:
        """Forget the driver's buffers, and what waits for some."""
        if queue == RECEIVE:
            self._buffers.clear()
            self._held.clear()
            self._wanted_ns = -WANT_NS

    def requests(self, queue: int, batch: list[QueueRequest], now_ns: int) -> None:
        """Take buffers for frames, or frames (sections 5.1.6.2 and 5.1.6.3)."""
        if queue == RECEIVE:
            if not all(request.writable for request in batch):
                self._port.needs_reset("network-buffer")
                return
            self._buffers += [(request.head, request.writable) for request in batch]
            self._wanted_ns = -WANT_NS
            self._deliver_held()
            return
        for request in batch:
            if request.readable < HEADER_BYTES:
                self._port.needs_reset("network-header")
                return
            self._transmit(request.data)
            self._output.complete(request.head)
        if self._held:
            self._want(now_ns)

    def _transmit(self, frame: Buffer) -> None:
        if not self._link_up or not ETHERNET_HEADER_BYTES <= len(frame) <= MAX_FRAME_BYTES:
            self.dropped_out += 1
            return
        self.frames_out += 1
        self.bytes_out += len(frame)
        self._backend.transmit(frame)

    def receive(self, frame: Buffer, now_ns: int) -> bool:
        """Put a frame into the driver's next buffers, or keep it until there are some; False if it was dropped."""
        if not self._link_up or self._input.generation == NOT_ARMED:
            self.dropped_in += 1
            return False
        if not self._held and (outcome := self._deliver(frame)) is not None:
            return outcome
        if len(self._held) == HELD_FRAMES:
            self._held.popleft()
            self.dropped_in += 1
        self._held.append(bytes(frame))
        self._deliver_held()
        if self._held:
            self._want(now_ns)
        return True

    def _deliver_held(self) -> None:
        """Deliver what waits, the oldest first, as far as there are buffers."""
        while self._held and self._deliver(self._held[0]) is not None:
            self._held.popleft()

    def _want(self, now_ns: int) -> None:
        """Have the ring looked at for buffers, if that was not done just now."""
        if now_ns - self._wanted_ns >= WANT_NS:
            self._wanted_ns = now_ns
            self._input.want()

    def _deliver(self, frame: Buffer) -> bool | None:
        """Put a frame into the driver's buffers.

        Returns:
            True; False if it was dropped, as it cannot fit; None if it must wait for buffers.
        """
        if not self._buffers:
            return None
        count = self._span(HEADER_BYTES + len(frame))
        if not count and has(self._negotiated, NetworkFeature.MRG_RXBUF) and len(self._buffers) < self._input.size:
            return None
        if not count:
            self.dropped_in += 1
            return False
        self.frames_in += 1
        self.bytes_in += len(frame)
        if count == 1:
            head, _ = self._buffers.popleft()
            self._input.complete(head, b"".join((_PLAIN_HEADER, frame)))
        else:
            self._merge(frame, count)
        return True

    def _span(self, length: int) -> int:
        """How many of the driver's buffers take so many bytes, without a gap between them; 0 if they do not."""
        if length <= self._buffers[0][1]:
            return 1
        if not has(self._negotiated, NetworkFeature.MRG_RXBUF):
            return 0
        for count, (_, room) in enumerate(self._buffers, 1):
            length -= room
            if length <= 0:
                return count
        return 0

    def _merge(self, frame: Buffer, count: int) -> None:
        """Fill several buffers; only the first has a header, which says how many they are (section 5.1.6.4.1)."""
        data = memoryview(b"".join((HEADER.pack(0, 0, 0, 0, 0, 0, count), frame)))
        buffers = [self._buffers.popleft() for _ in range(count)]
        starts = [0, *accumulate(room for _, room in buffers)]
        pieces = [data[start : start + room] for start, (_, room) in zip(starts, buffers, strict=False)]
        self._input.complete_together([head for head, _ in buffers], pieces)

    def link_changed(self, up: bool, now_ns: int) -> None:
        """The link came up or went down; the driver is told if it negotiated STATUS."""
        if up == self._link_up:
            return
        self._link_up = up
        self.config = self._pack()
        if has(self._negotiated, NetworkFeature.STATUS):
            self._port.config_changed()

    def write_config(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """No field can be written."""

    def state(self) -> State:
        """Link, buffers of the driver, frames that wait for some, counts."""
        return {
            "link_up": self._link_up,
            "negotiated": self._negotiated,
            "buffers": [list(buffer) for buffer in self._buffers],
            "held": list(self._held),
            "wanted_ns": self._wanted_ns,
            "out": [self.frames_out, self.bytes_out, self.dropped_out],
            "in": [self.frames_in, self.bytes_in, self.dropped_in],
        }

    def restore(self, state: State) -> None:
        """Take over a state."""
        self._link_up, self._negotiated = state["link_up"], state["negotiated"]
        self._buffers = deque((head, room) for head, room in state["buffers"])
        self._held = deque(state["held"])
        self._wanted_ns = state["wanted_ns"]
        self.frames_out, self.bytes_out, self.dropped_out = state["out"]
        self.frames_in, self.bytes_in, self.dropped_in = state["in"]
        self.config = self._pack()
