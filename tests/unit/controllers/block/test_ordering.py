"""Overlapping accesses run in order of arrival."""

from __future__ import annotations

from iovirt_dist.controllers.block.ordering import AccessOrder


def test_accesses_that_do_not_overlap_run_at_once() -> None:
    """Neighbours do not wait."""
    order = AccessOrder()

    assert [order.enter(1, 0, 512, True), order.enter(2, 512, 1024, True), order.enter(3, 1024, 1536, False)] == [
        True,
        True,
        True,
    ]


def test_reads_of_one_range_run_together() -> None:
    """Readers do not disturb each other."""
    order = AccessOrder()

    assert order.enter(1, 0, 512, False)
    assert order.enter(2, 0, 512, False)


def test_read_after_write_waits_for_it() -> None:
    """A read sees the write that arrived before it."""
    order = AccessOrder()
    order.enter(1, 0, 1024, True)

    assert not order.enter(2, 512, 2048, False)
    assert order.leave(1) == [2]


def test_write_after_read_waits_for_it() -> None:
    """A read does not see the write that arrived after it."""
    order = AccessOrder()
    order.enter(1, 0, 1024, False)

    assert not order.enter(2, 0, 512, True)
    assert order.leave(1) == [2]


def test_access_does_not_overtake_one_that_waits() -> None:
    """Three writes of one range run one after the other; a read behind them waits for all."""
    order = AccessOrder()
    entered = [order.enter(1, 0, 512, True), order.enter(2, 0, 1024, True), order.enter(3, 512, 1024, True)]
    entered.append(order.enter(4, 512, 1024, False))

    assert entered == [True, False, False, False]
    assert order.leave(1) == [2]
    assert order.leave(2) == [3]
    assert order.leave(3) == [4]
    assert order.leave(4) == []


def test_leave_lets_every_reader_that_waited_run() -> None:
    """Readers behind one write start together, in order; the write behind them waits for both."""
    order = AccessOrder()
    order.enter(1, 0, 512, True)
    for token, changes in ((2, False), (3, False), (4, True)):
        order.enter(token, 0, 512, changes)

    assert order.leave(1) == [2, 3]
    assert order.leave(3) == []
    assert order.leave(2) == [4]


def test_leave_of_an_unknown_token_changes_nothing() -> None:
    """Leaving twice is harmless."""
    order = AccessOrder()
    order.enter(1, 0, 512, True)
    order.leave(1)

    assert order.leave(1) == []
    assert order.enter(2, 0, 512, True)
