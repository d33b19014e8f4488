"""One guest's queue."""

from __future__ import annotations

import pytest

from iovirt_dist.mux.flow import MIN_COST, UNLIMITED, Flow
from iovirt_dist.platform.qos import Qos
from tests.unit.mux.items import Item, items

MS = 1_000_000


class Bench:
    """A flow, and how often it woke."""

    def __init__(self, bound: int = 100, qos: Qos | None = None) -> None:
        self.woken = 0
        self.flow: Flow[Item] = Flow("a", bound, self._wake, qos or Qos())

    def _wake(self, flow: Flow[Item]) -> None:
        assert flow.items
        self.woken += 1

    def serve(self, most: int = 100, budget: int = UNLIMITED, now_ns: int = 0) -> tuple[int, list[Item]]:
        """Cost and items."""
        taken: list[Item] = []
        return self.flow.serve(most, budget, now_ns, taken), taken


def test_flow_wakes_when_it_has_something_after_nothing() -> None:
    """Once, also for many at a time."""
    bench = Bench()

    bench.flow.push(Item(1))
    bench.flow.push(Item(1))
    bench.flow.push_many(items(1, 3))
    first = bench.woken
    bench.serve()
    bench.flow.push_many(items(1, 3))
    bench.flow.push_many([])

    assert (first, bench.woken) == (1, 2)


def test_flow_at_its_bound_takes_nothing() -> None:
    """And goes on when there is room again."""
    bench = Bench(bound=3)

    singly = [bench.flow.push(Item(1, number)) for number in range(2)]
    many = bench.flow.push_many(items(1, 3, first=2))
    full = bench.flow.push(Item(1, 9)), bench.flow.push_many(items(1, 3))
    _, taken = bench.serve(most=1)

    assert (singly, many, full) == ([True, True], 1, (False, 0))
    assert taken == [Item(1, 0)]
    assert bench.flow.push(Item(1, 9))
    assert len(bench.flow.items) == 3


def test_flow_without_budget_gives_all_and_counts_nothing() -> None:
    """In order; what was served is in flight."""
    bench = Bench()
    bench.flow.push_many(items(1, 5))

    cost, taken = bench.serve(most=4)

    assert (cost, taken) == (0, items(1, 4))
    assert (bench.flow.requests, bench.flow.in_flight) == (4, 4)


@pytest.mark.parametrize(
    ("lengths", "budget", "count", "cost"),
    [
        ([4096] * 5, 3 * 4096, 3, 3 * 4096),
        ([512] * 5, 3 * MIN_COST, 3, 3 * MIN_COST),
        ([65536] * 5, 65536 + 65535, 1, 65536),
        ([65536] * 5, 1, 1, 65536),
        ([4096, 65536, 4096], 65536, 1, 4096),
    ],
)
def test_flow_serves_within_its_budget_and_one_item_at_least(
    lengths: list[int], budget: int, count: int, cost: int
) -> None:
    """Small requests cost what it takes to look at them, large ones their data."""
    bench = Bench()
    for length in lengths:
        bench.flow.push(Item(1, 0, length))

    spent, taken = bench.serve(budget=budget)

    assert (len(taken), spent) == (count, cost)


def test_flow_that_discards_pays_for_no_data() -> None:
    """However large the range."""
    bench = Bench(qos=Qos(bandwidth=4096, burst_ns=1_000 * MS))
    bench.flow.push_many([Item(1, number, 1 << 30, moves_data=False) for number in range(5)])

    head = bench.flow.head_cost()
    cost, taken = bench.serve()

    assert (head, cost, len(taken)) == (MIN_COST, 5 * MIN_COST, 5)


def test_flow_obeys_both_limits() -> None:
    """Operations run out first, then bytes; afterwards it is told when to come back."""
    bench = Bench(qos=Qos(iops=1000, bandwidth=10 * 65536 * 100, burst_ns=10 * MS))
    bench.flow.push_many(items(1, 10) + items(1, 90, 65536))

    _, operations = bench.serve()
    waits_ns = bench.flow.ready_ns(0)
    _, nothing = bench.serve()
    _, bytes_ = bench.serve(now_ns=10 * MS)

    assert (len(operations), len(nothing), len(bytes_)) == (10, 0, 10)
    assert 0 < waits_ns <= 2 * MS
    assert bench.flow.limited


def test_flow_request_larger_than_the_burst_goes_and_the_next_one_waits() -> None:
    """A megabyte at a megabyte a second: one each second."""
    bench = Bench(qos=Qos(bandwidth=1 << 20))
    bench.flow.push_many(items(1, 3, 1 << 20))

    counts = [len(bench.serve(now_ns=now_ns)[1]) for now_ns in (0, 500 * MS, 981 * MS, 1500 * MS, 1981 * MS)]

    assert counts == [1, 0, 1, 0, 1]


def test_flow_without_limits_any_more_gives_all() -> None:
    """A limit that was taken away leaves nothing behind."""
    bench = Bench(qos=Qos(iops=1))
    bench.flow.push_many(items(1, 5))
    bench.serve()

    bench.flow.set_qos(Qos(), 0)

    assert not bench.flow.limited
    assert bench.flow.ready_ns(5) == 5
    assert len(bench.serve()[1]) == 4
