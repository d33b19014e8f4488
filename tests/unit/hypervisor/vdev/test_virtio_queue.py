"""Tests of a virtqueue's armed life in the hypervisor."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_queue import NOT_ARMED, VirtioQueue
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.wire.requests import COMPLETION


class Host:
    """Keeps which queues were touched."""

    def __init__(self) -> None:
        self.touched: list[VirtioQueue] = []
        self.generation = 0

    def touch(self, queue: VirtioQueue) -> None:
        """Note a queue."""
        self.touched.append(queue)

    def next_generation(self) -> int:
        """Count."""
        self.generation += 1
        return self.generation

    def fault(self, device: int, reason: str) -> None:
        """Nothing here is at fault."""


def armed() -> tuple[VirtioQueue, Host]:
    """A queue in its first life, of which the guest's process knows."""
    host = Host()
    queue = VirtioQueue(1, 2, 64, 0, host)
    queue.arm()
    queue.announced = queue.generation
    queue.flushed()
    host.touched.clear()
    return queue, host


def test_queue_completed_is_touched_once_until_it_is_flushed() -> None:
    """However much completes."""
    queue, host = armed()

    queue.complete(1)
    queue.complete(2, b"data")
    once = len(host.touched)
    queue.flushed()
    queue.complete(3)

    assert once == 1
    assert host.touched == [queue, queue]


def test_queue_completions_are_packed_with_their_data_apart() -> None:
    """Head, tail and length; pieces only of those that have data."""
    queue, _ = armed()

    queue.complete(1)
    queue.complete(2, b"data", 7)
    queue.complete(3, b"", 0)

    assert [COMPLETION.unpack(entry) for entry in queue.completions] == [(1, 0, 0, 0), (2, 1, 7, 4), (3, 1, 0, 0)]
    assert (queue.pieces, queue.piece_bytes) == ([b"data"], 4)


def test_queue_takes_completions_of_a_batch_with_its_frames() -> None:
    """Behind what waits already; frames stay as they are."""
    queue, host = armed()
    entries = [COMPLETION.pack(head, 1, 0, 4) for head in (5, 6)]

    queue.complete(4, b"abc")
    queue.complete_many(entries, [b"defghijk"], 8)

    assert queue.completions == [COMPLETION.pack(4, 0, 0, 3), *entries]
    assert (queue.pieces, queue.piece_bytes) == ([b"abc", b"defghijk"], 11)
    assert host.touched == [queue]


def test_queue_that_is_not_armed_takes_no_completions() -> None:
    """There is nobody to take them."""
    host = Host()
    queue = VirtioQueue(1, 2, 64, 0, host)

    queue.complete(1)

    assert (queue.completions, host.touched) == ([], [])


def test_queue_disarmed_drops_what_waits() -> None:
    """And counts from 0 in its next life."""
    queue, _ = armed()
    queue.complete(1, b"data")
    queue.flushed()
    queue.complete(2, b"data")

    queue.disarm()

    assert queue.generation == NOT_ARMED
    assert (queue.completions, queue.pieces, queue.piece_bytes, queue.completed) == ([], [], 0, 0)


def test_queue_disarmed_twice_is_touched_once() -> None:
    """The second time changes nothing."""
    queue, host = armed()

    queue.disarm()
    queue.flushed()
    queue.disarm()

    assert len(host.touched) == 1


@pytest.mark.parametrize(
    ("features", "size", "addresses", "problem"),
    [
        (0, 64, (16, 2, 4), ""),
        (0, 63, (16, 2, 4), "queue-size"),
        (0, 64, (8, 2, 4), "queue-alignment"),
        (0, 64, (16, 1, 4), "queue-alignment"),
        (0, 64, (16, 2, 2), "queue-alignment"),
        (mask(Feature.RING_PACKED), 63, (16, 4, 4), ""),
        (mask(Feature.RING_PACKED), 64, (16, 2, 4), "queue-alignment"),
    ],
)
def test_queue_problem_follows_the_layout(
    features: int, size: int, addresses: tuple[int, int, int], problem: str
) -> None:
    """Sections 2.7 and 2.8 of VIRTIO 1.2."""
    queue, _ = armed()
    queue.size = size
    queue.descriptors, queue.driver_area, queue.device_area = addresses

    assert queue.problem(features) == problem
