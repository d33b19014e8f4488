"""The bounded queue."""

from __future__ import annotations

from typing import NamedTuple

from iovirt_dist.ids import RequestId
from iovirt_dist.mux.fifo import Fifo


class Item(NamedTuple):
    """Something with an id."""

    id: RequestId


def item(guest: int, sequence: int = 0) -> Item:
    """A guest's item."""
    return Item(RequestId(guest, 0, sequence))


def test_fifo_gives_in_order_of_arrival() -> None:
    """As many as are asked for, or all there are."""
    fifo: Fifo[int] = Fifo(10)
    for number in range(5):
        fifo.push(number)

    assert fifo.take(2) == [0, 1]
    assert fifo.take(100) == [2, 3, 4]
    assert fifo.take(1) == []


def test_fifo_at_its_bound_takes_nothing() -> None:
    """And goes on when there is room again."""
    fifo: Fifo[int] = Fifo(2)

    taken = [fifo.push(number) for number in range(3)]
    fifo.take(1)

    assert taken == [True, True, False]
    assert fifo.push(3)
    assert len(fifo) == 2


def test_fifo_takes_back_what_was_taken_whatever_the_bound() -> None:
    """In its old order, before everything else."""
    fifo: Fifo[int] = Fifo(2)
    fifo.push(3)
    fifo.push(4)

    fifo.push_front([1, 2])

    assert fifo.take(10) == [1, 2, 3, 4]


def test_fifo_drops_one_guest_and_keeps_the_order_of_the_others() -> None:
    """What it dropped comes back to the caller."""
    fifo: Fifo[Item] = Fifo(10)
    for each in (item(1, 1), item(2, 1), item(1, 2), item(3, 1)):
        fifo.push(each)

    assert fifo.drop(1) == [item(1, 1), item(1, 2)]
    assert fifo.drop(7) == []
    assert fifo.take(10) == [item(2, 1), item(3, 1)]
