"""Strict priority with aging."""

from __future__ import annotations

from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.mux.priority import AGING_NS, TURN_COST
from iovirt_dist.platform.qos import Priority, Qos, SchedulerKind
from tests.unit.mux.items import Item, fill, items, owners, served

TURN = TURN_COST // 4096


def queue_of(*priorities: Priority) -> MultiQueue[Item]:
    """Guests a, b, ... of these classes, with a hundred items each."""
    qos = {chr(ord("a") + at): Qos(priority=priority) for at, priority in enumerate(priorities)}
    queue: MultiQueue[Item] = MultiQueue(SchedulerKind.PRIORITY, depth=0, qos=qos)
    fill(queue, len(priorities), 100)
    return queue


def test_better_class_goes_first() -> None:
    """All of it."""
    queue = queue_of(Priority.LOW, Priority.URGENT, Priority.MEDIUM, Priority.HIGH)

    assert owners(queue.take(400, 0)) == [2] * 100 + [4] * 100 + [3] * 100 + [1] * 100


def test_flows_of_a_class_take_turns() -> None:
    """A few requests each."""
    queue = queue_of(Priority.HIGH, Priority.HIGH)

    assert owners(queue.take(3 * TURN, 0)) == [1] * TURN + [2] * TURN + [1] * TURN


def test_nobody_waits_for_ever() -> None:
    """A low guest rises by a class each aging time, has a turn, and is low again."""
    queue = queue_of(Priority.LOW, Priority.URGENT)
    owned = []
    for step in range(10):
        owned.append(served(queue.take(5, step * AGING_NS)))
        queue.entry(2).push_many(items(2, 5))

    assert owned[:3] == [{2: 5}] * 3
    assert owned[3] == {2: 4, 1: 1}
    assert [entry.get(1, 0) > 0 for entry in owned].count(True) >= 2


def test_priority_that_is_changed_holds_at_once() -> None:
    """Wherever the guest waits."""
    queue = queue_of(Priority.LOW, Priority.HIGH)
    queue.take(10, 0)

    queue.set_qos("a", Qos(priority=Priority.URGENT), 0)

    assert owners(queue.take(10, 0)) == [1] * 10


def test_dropped_flow_is_in_no_class_any_more() -> None:
    """Woken, waiting or risen."""
    queue = queue_of(Priority.LOW, Priority.HIGH, Priority.HIGH)
    queue.drop(3)
    queue.take(1, 0)
    queue.take(1, 2 * AGING_NS)
    queue.drop(1)

    assert served(queue.take(400, 2 * AGING_NS)) == {2: 98}
