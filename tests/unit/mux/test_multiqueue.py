"""The queue in front of a controller, whatever the scheduler."""

from __future__ import annotations

import pytest

from iovirt_dist.mux.multiqueue import COMPETITION_NS, MANY, MultiQueue
from iovirt_dist.platform.qos import Qos, SchedulerKind
from tests.unit.mux.items import Item, fill, items, served

MS = 1_000_000
SECOND = 1_000_000_000
EACH = pytest.mark.parametrize("kind", SchedulerKind)


@EACH
def test_queue_keeps_each_guests_order_and_gives_everything(kind: SchedulerKind) -> None:
    """However it is taken."""
    queue: MultiQueue[Item] = MultiQueue(kind, depth=0)
    fill(queue, 3, 20)

    taken = [item for most in (1, 7, 0, 30, 100) for item in queue.take(most, 5)]

    assert len(taken) == 60
    assert not queue
    assert len(queue) == 0
    assert [[item for item in taken if item.guest == guest] for guest in (1, 2, 3)] == [
        items(guest, 20) for guest in (1, 2, 3)
    ]


@EACH
def test_queue_of_one_guest_gives_all_at_once(kind: SchedulerKind) -> None:
    """Nobody competes, so nothing is held back."""
    queue: MultiQueue[Item] = MultiQueue(kind)
    fill(queue, 1, 200)

    assert queue.window(0) > 4096
    assert queue.take(1000, 0) == items(1, 200)


@EACH
def test_flood_fills_only_its_own_place(kind: SchedulerKind) -> None:
    """Another guest's request is taken, and served soon."""
    queue: MultiQueue[Item] = MultiQueue(kind, bound=10, depth=0)
    flood, other = queue.entry(1), queue.entry(2)

    queued = [flood.push(Item(1, number)) for number in range(11)]
    accepted = other.push(Item(2))

    assert queued == [True] * 10 + [False]
    assert accepted
    assert Item(2) in queue.take(11, 0)


@EACH
def test_items_put_back_go_first_and_are_not_charged_again(kind: SchedulerKind) -> None:
    """In their old order, before everything else; their limit counted them already."""
    queue: MultiQueue[Item] = MultiQueue(kind, qos={"a": Qos(iops=100)})
    fill(queue, 1, 2)
    taken = queue.take(10, 0)

    queue.push_front(taken)
    again = queue.take(1, 0) + queue.take(9, 0)

    assert (taken, again) == (items(1, 2), items(1, 2))
    assert queue.entry(1).in_flight == 2


@EACH
def test_dropped_guest_leaves_nothing_and_others_stay(kind: SchedulerKind) -> None:
    """Also of what was put back; another instance of the same guest keeps its own."""
    queue: MultiQueue[Item] = MultiQueue(kind, depth=0)
    for instance, name in ((1, "a"), (2, "b"), (3, "a")):
        queue.enroll(instance, name)
        queue.entry(instance).push_many(items(instance, 3))
    queue.push_front(queue.take(1, 0))
    before = queue.entry(1).in_flight + queue.entry(2).in_flight

    dropped = queue.drop(1)
    rest = queue.take(10, 0)

    assert before == 1
    assert dropped == items(1, 3)
    assert sorted(rest) == items(2, 3) + items(3, 3)
    assert queue.drop(9) == []
    assert not queue


@EACH
def test_limit_holds_back_its_guest_alone_and_says_until_when(kind: SchedulerKind) -> None:
    """The others are served meanwhile; when the time has come it goes on."""
    queue: MultiQueue[Item] = MultiQueue(kind, depth=0, qos={"a": Qos(iops=100)})
    fill(queue, 2, 10)

    first = queue.take(100, 0)
    until_ns = queue.ready_ns()
    nothing = queue.take(100, 0)
    assert until_ns is not None
    later = queue.take(100, until_ns)
    flow = queue.flow("a")

    assert served(first) == {1: 2, 2: 10}
    assert nothing == []
    assert queue
    assert until_ns == SECOND // 100 - 9_500_000
    assert served(later) == {1: 1}
    assert flow is not None
    assert flow.throttled == 2


@EACH
@pytest.mark.parametrize("rate", [10, 1000, 50_000])
def test_rate_holds_in_every_second_after_the_first(kind: SchedulerKind, rate: int) -> None:
    """Woken when it says, a little late, by a guest that always has more."""
    queue: MultiQueue[Item] = MultiQueue(kind, qos={"a": Qos(iops=rate)})
    queue.enroll(1, "a")
    entry = queue.entry(1)
    now_ns, counts, late_ns = 0, [0] * 5, 300_000
    while now_ns < 5 * SECOND:
        entry.push_many(items(1, 256 - len(queue)))
        taken = len(queue.take(64, now_ns))
        entry.in_flight -= taken
        counts[now_ns // SECOND] += taken
        now_ns = now_ns if taken == 64 else (queue.ready_ns() or 0) + late_ns

    assert all(abs(count - rate) <= max(1, rate * 0.02) for count in counts[1:])


@EACH
def test_limit_that_is_changed_holds_at_once(kind: SchedulerKind) -> None:
    """For a guest that waits for its old one, too."""
    queue: MultiQueue[Item] = MultiQueue(kind, qos={"a": Qos(iops=1)})
    fill(queue, 1, 10)
    first = queue.take(100, 0)

    queue.set_qos("a", Qos(), 5)
    second = queue.take(5, 5)
    queue.set_qos("a", Qos(iops=50), 6)
    third = queue.take(100, 6)

    assert [len(first), len(second), len(third)] == [1, 5, 1]
    assert queue.qos("a") == Qos(iops=50)
    assert queue.qos("nobody") == Qos()


def test_depth_keeps_requests_back_while_guests_compete() -> None:
    """Those without shares have a window; alone again, a guest has all of it after a while."""
    queue: MultiQueue[Item] = MultiQueue(SchedulerKind.PRIORITY, depth=16)
    fill(queue, 2, 100)
    queue.arrived(0)
    competing = queue.window(0)
    taken = queue.take(16, 0)
    queue.drop(2)

    assert competing == 16
    assert len(taken) == 16
    assert queue.window(COMPETITION_NS - 1) == 16
    assert queue.window(COMPETITION_NS) > 4096


@pytest.mark.parametrize("kind", [SchedulerKind.DRR, SchedulerKind.WFQ])
def test_each_guest_has_its_share_in_flight_and_no_more(kind: SchedulerKind) -> None:
    """By weight, though everybody would like everything; who has nothing in flight or waiting does not count."""
    queue: MultiQueue[Item] = MultiQueue(kind, depth=32, qos={"a": Qos(weight=2), "b": Qos(weight=3)})
    fill(queue, 3, 100)
    queue.drop(3)

    taken = queue.take(1000, 0)
    more = queue.take(1000, 0)
    queue.entry(2).in_flight -= 10
    again = queue.take(1000, 0)

    assert served(taken) == {1: 26, 2: 38}
    assert more == []
    assert served(again) == {2: 10}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1, 2, 4), {1: 10, 2: 20, 3: 40}), ((1, 1, 1), {1: 32, 2: 32, 3: 32}), ((1, 1, 30), {3: 90})],
)
def test_share_in_flight_is_bounded_unless_others_had_hardly_any(
    weights: tuple[int, ...], shares: dict[int, int]
) -> None:
    """A guest's ring must hold more than its share; but shares of less than four requests would be none."""
    qos = {chr(ord("a") + at): Qos(weight=weight) for at, weight in enumerate(weights)}
    queue: MultiQueue[Item] = MultiQueue(depth=32, qos=qos)
    fill(queue, 3, 200)

    taken = served(queue.take(1000, 0))

    assert taken | shares == taken


@pytest.mark.parametrize("kind", [SchedulerKind.DRR, SchedulerKind.WFQ])
def test_guest_goes_on_when_a_quarter_of_its_share_is_free(kind: SchedulerKind) -> None:
    """Not one by one; also if it had nothing waiting meanwhile."""
    queue: MultiQueue[Item] = MultiQueue(kind, depth=16)
    fill(queue, 1, 16)
    queue.enroll(2, "b")
    queue.entry(2).push_many(items(2, 100))
    first = served(queue.take(1000, 0))

    queue.entry(1).in_flight -= 3
    queue.entry(2).in_flight -= 3
    queue.entry(1).push_many(items(1, 3))
    early = queue.take(1000, 0)
    queue.entry(1).in_flight -= 1
    queue.entry(2).in_flight -= 1
    later = served(queue.take(1000, 0))

    assert first == {1: 16, 2: 16}
    assert early == []
    assert later == {1: 3, 2: 4}


@pytest.mark.parametrize(("guests", "each"), [(MANY, 32), (MANY + 1, 64)])
def test_many_guests_that_are_alike_have_twice_as_much_at_a_time(guests: int, each: int) -> None:
    """Each waits for all others before its next turn."""
    queue: MultiQueue[Item] = MultiQueue(depth=32)
    fill(queue, guests, 100)

    assert served(queue.take(10_000, 0)) == dict.fromkeys(range(1, guests + 1), each)


def test_share_in_flight_is_of_bytes_and_never_less_than_a_request() -> None:
    """Large requests are few; with both large there are some for each."""
    queue: MultiQueue[Item] = MultiQueue(depth=32, qos={"a": Qos(weight=1), "b": Qos(weight=1)})
    queue.enroll(1, "a")
    queue.enroll(2, "b")
    queue.entry(1).push_many(items(1, 100, 65536))
    queue.entry(2).push_many(items(2, 100))

    mixed = served(queue.take(1000, 0))

    large: MultiQueue[Item] = MultiQueue(depth=32, qos={"a": Qos(weight=1000)})
    fill(large, 2, 100, 1 << 20)

    assert mixed == {1: 4, 2: 64}
    assert served(large.take(1000, 0)) == {1: 8, 2: 1}


def test_guest_that_competes_no_more_leaves_its_share_to_the_other() -> None:
    """As soon as its last request is over."""
    queue: MultiQueue[Item] = MultiQueue(depth=32)
    fill(queue, 1, 100)
    queue.enroll(2, "b")
    queue.entry(2).push(Item(2))

    competing = queue.take(1000, 0)
    queue.entry(2).in_flight -= 1
    alone = queue.take(1000, 0)

    assert served(competing) == {1: 32, 2: 1}
    assert served(alone) == {1: 68}
