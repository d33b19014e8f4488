"""Received frames beside a model of a driver: whatever buffers it offers, it finds whole frames, in order."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.hypervisor.vdev.virtio_net import ETHERNET_HEADER_BYTES, HELD_FRAMES
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.network import HEADER, HEADER_BYTES, NetworkFeature
from iovirt_dist.wire.queue_messages import Completions
from tests.unit.hypervisor.vdev.test_virtio_net import RECEIVE, NetBench
from tests.unit.hypervisor.vdev.virtio_bench import Offered, Returned, unpack_returned

RING = 64
"""Buffers that the driver's ring holds."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("buffer"), st.integers(HEADER_BYTES, 2000)),
        st.tuples(st.just("frame"), st.integers(ETHERNET_HEADER_BYTES, 9014)),
        st.tuples(st.just("take"), st.just(0)),
    ),
    max_size=120,
)


class Driver:
    """A card's driver, and a model of the card.

    Args:
        merging: Whether it negotiated MRG_RXBUF.

    Attributes:
        frames: What it received.
        expected: What the model delivers.
        dropped: What the model drops.
    """

    def __init__(self, merging: bool) -> None:
        merged = [NetworkFeature.MRG_RXBUF] if merging else []
        self.bench = NetBench(features=mask(Feature.VERSION_1, *merged))
        self.merging = merging
        self.frames: list[bytes] = []
        self.expected: list[bytes] = []
        self.dropped = 0
        self._rooms: dict[int, int] = {}
        self._offered: deque[int] = deque()
        self._held: deque[bytes] = deque()

    def buffer(self, room: int) -> None:
        """Put a buffer into the ring, if there is a place."""
        free = [head for head in range(RING) if head not in self._rooms][:1]
        for head in free:
            self._rooms[head] = room
            self._offered.append(room)
            self.bench.doorbell(RECEIVE, Offered(head, writable=room))
        self._model()

    def frame(self, length: int) -> None:
        """A frame comes."""
        frame = len(self.expected).to_bytes(4, "big") + bytes(length - 4)
        if len(self._held) == HELD_FRAMES:
            self._held.popleft()
            self.dropped += 1
        self._held.append(frame)
        self._model()
        self.bench.net.receive(frame, 0)

    def take(self, _: int = 0) -> None:
        """Take what each message brings: whole frames, and nothing else."""
        for body, payload in self.bench.flush():
            assert isinstance(body, Completions)
            returned = deque(unpack_returned(body, payload))
            while returned:
                self.frames.append(self._one(returned))

    def _one(self, returned: deque[Returned]) -> bytes:
        """A frame out of as many buffers as its header says, all full but the last one."""
        count = HEADER.unpack(returned[0].data[:HEADER_BYTES])[6]
        pieces = [returned.popleft() for _ in range(count)]
        rooms = [self._rooms.pop(piece.head) for piece in pieces]
        assert [len(piece.data) for piece in pieces[:-1]] == rooms[:-1]
        assert 0 < len(pieces[-1].data) <= rooms[-1]
        return b"".join(piece.data for piece in pieces)[HEADER_BYTES:]

    def _model(self) -> None:
        """Deliver what fits, the oldest first."""
        while self._held and self._offered:
            size = len(self._held[0]) + HEADER_BYTES
            usable = list(self._offered) if self.merging else [self._offered[0]]
            if sum(usable) >= size:
                self.expected.append(self._held.popleft())
                while size > 0:
                    size -= self._offered.popleft()
            elif not self.merging or len(self._offered) == RING:
                self._held.popleft()
                self.dropped += 1
            else:
                return


@given(STEPS, st.booleans())
def test_driver_finds_whole_frames_in_order_and_what_is_dropped_is_counted(
    steps: list[tuple[str, int]], merging: bool
) -> None:
    """All buffers of a frame are in one message; with and without merging."""
    driver = Driver(merging)

    for step, value in steps:
        getattr(driver, step)(value)
    driver.take()

    assert driver.frames == driver.expected
    assert driver.bench.net.dropped_in == driver.dropped
    assert driver.bench.net.frames_in == len(driver.expected)
