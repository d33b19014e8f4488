"""Completions that gather: which bytes they leave as."""

from __future__ import annotations

from iovirt_dist.controllers.peer_queues import CompletionBatch
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES
from iovirt_dist.wire.commands import MAX_BATCH, Completion, Status
from iovirt_dist.wire.payload import JOIN_BYTES


def _completion(length: int) -> Completion:
    return Completion(RequestId(1, 0, 1).pack(), Status.OK, length)


def test_neighbours_in_one_buffer_leave_as_that_buffer() -> None:
    """Sixty-four reads into one buffer are one frame, not copied."""
    buffer = bytearray(64 * 4096)
    batch = CompletionBatch()

    for at in range(64):
        batch.add([_completion(4096)], buffer, at * 4096, at * 4096 + 4096)

    (frame,) = batch.frames()
    assert frame is buffer
    assert batch.payload_bytes == len(buffer)


def test_parts_of_a_buffer_leave_in_the_order_of_their_completions() -> None:
    """A gap or another order makes pieces; small ones share a frame."""
    buffer = b"aabbccdd"
    batch = CompletionBatch()

    for start in (6, 0, 2):
        batch.add([_completion(2)], buffer, start, start + 2)

    assert [bytes(frame) for frame in batch.frames()] == [b"ddaabb"]


def test_part_of_a_large_buffer_is_a_view_of_it() -> None:
    """Its end is unused, because some read of the batch has to wait for the medium."""
    buffer = bytearray(2 * JOIN_BYTES + 2)
    batch = CompletionBatch()
    batch.add([_completion(JOIN_BYTES + 1)], buffer, 0, JOIN_BYTES + 1)

    (frame,) = batch.frames()

    assert isinstance(frame, memoryview)
    assert frame.obj is buffer
    assert len(frame) == JOIN_BYTES + 1


def test_completion_without_data_separates_nothing() -> None:
    """A write between two reads leaves their data together."""
    buffer = bytearray(b"aabb")
    batch = CompletionBatch()

    batch.add([_completion(2)], buffer, 0, 2)
    batch.add([_completion(0)], b"", 0, 0)
    batch.add([_completion(2)], buffer, 2, 4)

    assert batch.frames() == [buffer]


def test_batch_is_full_at_the_bounds_of_the_wire() -> None:
    """In completions and in bytes."""
    many, large = CompletionBatch(), CompletionBatch()
    for _ in range(MAX_BATCH):
        many.add([_completion(0)], b"", 0, 0)
    large.add([_completion(MAX_PAYLOAD_BYTES - 1)], bytes(MAX_PAYLOAD_BYTES - 1), 0, MAX_PAYLOAD_BYTES - 1)

    assert many.full_for(1, 0)
    assert not large.full_for(1, 1)
    assert large.full_for(1, 2)
