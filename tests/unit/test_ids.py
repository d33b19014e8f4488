"""Numbers that travel end to end."""

from __future__ import annotations

from iovirt_dist.ids import MERGED, RequestId, merged_queue, parts_of


def test_request_id_round_trips_through_its_bytes() -> None:
    """Sixteen of them."""
    id_ = RequestId(7, merged_queue(6, 128), (1 << 64) - 1)

    assert RequestId.unpack(id_.pack()) == id_
    assert len(id_.pack()) == 16


def test_queue_number_of_a_merged_command_tells_queue_and_requests() -> None:
    """One of a plain request tells itself."""
    assert parts_of(merged_queue(6, 128)) == (6, 128)
    assert parts_of(6) == (6, 1)
    assert merged_queue(6, 128) & MERGED
