"""Earliest deadline first, and order of arrival."""

from __future__ import annotations

from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.platform.qos import Qos, SchedulerKind
from tests.unit.mux.items import Item, items, owners

MS = 1_000_000


def queue_of(kind: SchedulerKind, **latencies_ms: int) -> MultiQueue[Item]:
    """Guests 1, 2, ... with these names and latency targets."""
    qos = {name: Qos(latency_ns=latency * MS) for name, latency in latencies_ms.items()}
    queue: MultiQueue[Item] = MultiQueue(kind, depth=0, qos=qos)
    for guest, name in enumerate(latencies_ms, 1):
        queue.enroll(guest, name)
    return queue


def arrive(queue: MultiQueue[Item], guest: int, count: int, now_ns: int) -> None:
    """Items come at a time."""
    queue.entry(guest).push_many(items(guest, count))
    queue.arrived(now_ns)


def test_fifo_is_order_of_arrival_over_all_guests() -> None:
    """Latency targets do not matter; steps at the same time are in order, too."""
    queue = queue_of(SchedulerKind.FIFO, a=1, b=50)
    for guest, count, now_ns in ((2, 3, 0), (1, 2, 0), (2, 1, 5), (1, 1, 5)):
        arrive(queue, guest, count, now_ns)

    assert owners(queue.take(3, 9)) == [2, 2, 2]
    assert owners(queue.take(100, 9)) == [1, 1, 2, 1]


def test_earliest_deadline_goes_first() -> None:
    """Arrival plus target: a strict guest overtakes, but not one that has waited long."""
    queue = queue_of(SchedulerKind.DEADLINE, slow=50, strict=5)
    arrive(queue, 1, 2, 0)
    arrive(queue, 2, 2, 10 * MS)
    arrive(queue, 1, 1, 20 * MS)
    arrive(queue, 2, 1, 46 * MS)

    assert owners(queue.take(100, 46 * MS)) == [2, 2, 1, 1, 2, 1]


def test_missed_deadlines_are_served_in_their_order() -> None:
    """And nothing that came later is before them."""
    queue = queue_of(SchedulerKind.DEADLINE, a=5, b=5)
    arrive(queue, 1, 2, 0)
    arrive(queue, 2, 2, 1)

    assert owners(queue.take(2, 900 * MS)) == [1, 1]
    arrive(queue, 1, 1, 900 * MS)
    assert owners(queue.take(10, 900 * MS)) == [2, 2, 1]


def test_part_of_a_run_keeps_its_place() -> None:
    """What is left of items that came together is still as old."""
    queue = queue_of(SchedulerKind.FIFO, a=1, b=1)
    arrive(queue, 1, 3, 0)
    arrive(queue, 2, 1, 1)

    assert [owners(queue.take(1, 2)) for _ in range(4)] == [[1], [1], [1], [2]]


def test_dropped_and_changed_flows_count_as_new() -> None:
    """Their other items are served all the same, in order."""
    queue = queue_of(SchedulerKind.DEADLINE, a=5, b=5)
    queue.enroll(3, "a")
    arrive(queue, 1, 2, 0)
    arrive(queue, 3, 2, 0)
    queue.take(1, 0)
    arrive(queue, 2, 2, 1)

    queue.drop(1)
    queue.set_qos("b", Qos(latency_ns=MS), 2)

    assert owners(queue.take(10, 3)) == [2, 2, 3, 3]
    assert queue.flow("a") is not None


def test_dropped_flow_that_a_limit_held_back_leaves_no_times() -> None:
    """Its next life's items have times of their own, and everything is served."""
    queue = queue_of(SchedulerKind.FIFO, a=1, b=1)
    queue.set_qos("a", Qos(iops=1000, burst_ns=MS), 0)
    arrive(queue, 1, 10, 0)
    taken = queue.take(100, 0)
    assert 0 < len(taken) < 10

    queue.drop(1)
    queue.enroll(3, "a")
    arrive(queue, 2, 2, 5 * MS)
    arrive(queue, 3, 1, 6 * MS)

    flow = queue.flow("a")
    assert flow is not None
    assert [[count for *_, count in flow.runs], flow.stamped] == [[1], 1]
    assert owners(queue.take(100, 9 * MS)) == [2, 2, 3]
