"""Weighted fair queueing."""

from __future__ import annotations

import pytest

from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.mux.wfq import TURN_COST
from iovirt_dist.platform.qos import Qos, SchedulerKind
from tests.unit.mux.items import Item, fill, items, owners, served

TURN = TURN_COST // 4096 + 1


def queue_of(*weights: int) -> MultiQueue[Item]:
    """Guests a, b, ... with these weights, as many in flight as they like."""
    qos = {chr(ord("a") + at): Qos(weight=weight) for at, weight in enumerate(weights)}
    return MultiQueue(SchedulerKind.WFQ, depth=0, qos=qos)


@pytest.mark.parametrize("weights", [(1, 2, 4), (10, 20, 40), (3, 2, 2), (100, 1, 1)])
def test_backlogged_guests_share_by_weight(weights: tuple[int, ...]) -> None:
    """Within a turn of each, however it is taken."""
    queue = queue_of(*weights)
    fill(queue, 3, 4000)

    shares = served([item for most in (1, 64, 7) * 40 for item in queue.take(most, 0)])

    for guest, weight in enumerate(weights, 1):
        assert abs(shares[guest] - 2880 * weight / sum(weights)) <= 3 * TURN


def test_guests_share_bytes_and_not_requests() -> None:
    """Sixteen small ones for a large one."""
    queue = queue_of(1, 1)
    queue.enroll(1, "a")
    queue.enroll(2, "b")
    queue.entry(1).push_many(items(1, 100, 65536))
    queue.entry(2).push_many(items(2, 2000))

    shares = served(queue.take(680, 0))

    assert abs(shares[2] - 16 * shares[1]) <= 16 + TURN


def test_guest_that_asks_for_little_is_next() -> None:
    """Its finish time is before those of guests with a backlog, whatever they had."""
    queue = queue_of(1, 1, 1)
    fill(queue, 2, 1000)
    queue.take(600, 0)
    queue.enroll(3, "c")
    queue.entry(3).push(Item(3))

    assert 3 in owners(queue.take(2 * TURN + 1, 0))


def test_guest_that_comes_late_has_saved_nothing() -> None:
    """It shares from now on, and does not make up for the time before."""
    queue = queue_of(1, 1, 1)
    fill(queue, 2, 1000)
    queue.take(900, 0)
    queue.enroll(3, "c")
    queue.entry(3).push_many(items(3, 100))

    assert abs(served(queue.take(90, 0))[3] - 30) <= 2 * TURN


def test_guest_alone_is_not_made_to_pay_when_another_comes() -> None:
    """What it had alone is free, and what the other did not ask for is not saved."""
    queue = queue_of(1, 1)
    fill(queue, 1, 2000)
    queue.take(1000, 0)
    queue.enroll(2, "b")
    queue.entry(2).push_many(items(2, 500))

    shares = served(queue.take(200, 0))

    assert abs(shares[1] - shares[2]) <= 2 * TURN


def test_going_idle_and_coming_back_pays_no_debt_off() -> None:
    """Nobody gets more by asking in small pieces."""
    queue = queue_of(1, 1)
    fill(queue, 2, 1000)
    sly = queue.entry(1)
    queue.drop(1)
    queue.enroll(1, "a")
    counts = {1: 0, 2: 0}
    for _ in range(100):
        sly.push_many(items(1, 2))
        for owner in owners(queue.take(2, 0)):
            counts[owner] += 1

    assert counts[1] <= 100 + TURN
