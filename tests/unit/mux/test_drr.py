"""Deficit round robin."""

from __future__ import annotations

import pytest

from iovirt_dist.mux.drr import QUANTUM
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.platform.qos import Qos
from tests.unit.mux.items import Item, fill, items, owners, served

TURN = QUANTUM // 4096


def queue_of(*weights: int) -> MultiQueue[Item]:
    """Guests a, b, ... with these weights, as many in flight as they like."""
    qos = {chr(ord("a") + at): Qos(weight=weight) for at, weight in enumerate(weights)}
    return MultiQueue(depth=0, qos=qos)


def test_equal_guests_take_turns() -> None:
    """A quantum each."""
    queue = queue_of(1, 1)
    fill(queue, 2, 2 * TURN)

    assert owners(queue.take(2 * TURN + 1, 0)) == [1] * TURN + [2] * TURN + [1]


def test_turn_that_was_cut_short_goes_on() -> None:
    """A small batch does not cost the guest the rest of its turn."""
    queue = queue_of(1, 1)
    fill(queue, 2, TURN)

    assert owners([item for _ in range(2 * TURN) for item in queue.take(1, 0)]) == [1] * TURN + [2] * TURN


@pytest.mark.parametrize("weights", [(1, 2, 4), (10, 20, 40), (3, 2, 2), (1000, 1, 1)])
def test_backlogged_guests_share_by_weight(weights: tuple[int, ...]) -> None:
    """Within a turn over a few thousand requests."""
    queue = queue_of(*weights)
    fill(queue, 3, 4000)

    shares = served([item for _ in range(20) for item in queue.take(150, 0)])

    for guest, weight in enumerate(weights, 1):
        assert abs(shares[guest] - 3000 * weight / sum(weights)) <= TURN


def test_guests_share_bytes_and_not_requests() -> None:
    """Sixteen small ones for a large one; a large one waits for its quanta, however many rounds that is."""
    queue = queue_of(1, 1)
    fill(queue, 2, 2000)
    queue.drop(1)
    queue.enroll(1, "a")
    queue.entry(1).push_many(items(1, 100, 65536))
    small = served(queue.take(680, 0))

    huge = queue_of(1, 1000)
    fill(huge, 2, 4000)
    huge.drop(1)
    huge.enroll(1, "a")
    huge.entry(1).push_many(items(1, 2, 4 << 20))

    assert abs(small[2] - 16 * small[1]) <= 16
    assert served(huge.take(1000, 0)) == {2: 1000}


def test_guest_that_was_idle_has_saved_nothing() -> None:
    """It takes turns from now on."""
    queue = queue_of(1, 1)
    fill(queue, 1, 1000)
    queue.take(500, 0)
    queue.enroll(2, "b")
    queue.entry(2).push_many(items(2, 100))

    shares = served(queue.take(100, 0))

    assert abs(shares[1] - shares[2]) <= TURN


def test_weight_that_is_changed_holds_from_the_next_turn() -> None:
    """For guests that wait."""
    queue = queue_of(1, 1)
    fill(queue, 2, 4000)
    queue.take(100, 0)

    queue.set_qos("a", Qos(weight=3), 0)
    shares = served(queue.take(1000, 0))

    assert abs(shares[1] - 750) <= TURN
