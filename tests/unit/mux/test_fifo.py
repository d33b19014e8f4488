"""The bounded queue."""

from __future__ import annotations

from typing import NamedTuple

from iovirt_dist.mux.fifo import Fifo


class Item(NamedTuple):
    """Something of a guest's."""

    guest: int
    number: int = 0


def items(*numbers: int) -> list[Item]:
    """Items of one guest."""
    return [Item(1, number) for number in numbers]


def test_fifo_gives_in_order_of_arrival() -> None:
    """As many as are asked for, or all there are."""
    fifo: Fifo[Item] = Fifo(10)
    for each in items(0, 1, 2, 3, 4):
        fifo.push(each)

    assert fifo.take(2) == items(0, 1)
    assert fifo.take(100) == items(2, 3, 4)
    assert fifo.take(1) == []


def test_fifo_at_its_bound_takes_nothing() -> None:
    """And goes on when there is room again."""
    fifo: Fifo[Item] = Fifo(2)

    taken = [fifo.push(each) for each in items(0, 1, 2)]
    fifo.take(1)

    assert taken == [True, True, False]
    assert fifo.push(Item(1, 3))
    assert len(fifo) == 2


def test_fifo_takes_back_what_was_taken_whatever_the_bound() -> None:
    """In its old order, before everything else."""
    fifo: Fifo[Item] = Fifo(2)
    fifo.push(Item(1, 3))
    fifo.push(Item(1, 4))

    fifo.push_front(items(1, 2))

    assert fifo.take(10) == items(1, 2, 3, 4)


def test_fifo_drops_one_guest_and_keeps_the_order_of_the_others() -> None:
    """What it dropped comes back to the caller."""
    fifo: Fifo[Item] = Fifo(10)
    for each in (Item(1, 1), Item(2, 1), Item(1, 2), Item(3, 1)):
        fifo.push(each)

    assert fifo.drop(1) == items(1, 2)
    assert fifo.drop(7) == []
    assert fifo.take(10) == [Item(2, 1), Item(3, 1)]
