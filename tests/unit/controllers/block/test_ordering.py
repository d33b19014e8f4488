"""Overlapping accesses run in order of arrival."""

from __future__ import annotations

from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.block.ordering import AccessOrder
from iovirt_dist.wire.commands import Opcode


def read(token: int, start: int, end: int) -> Operation:
    """A read of a range."""
    return Operation(token, Opcode.READ, start, end - start)


def change(token: int, start: int, end: int) -> Operation:
    """A discard of a range."""
    return Operation(token, Opcode.DISCARD, start, end - start)


def enters(order: AccessOrder, operation: Operation) -> bool:
    """Add an access; returns whether it may run now."""
    return order.enter([operation]) == [operation]


def left(order: AccessOrder, token: int) -> list[int]:
    """Let an access end; returns the tokens of those that may run now."""
    return [operation.token for operation in order.leave([token])]


def test_accesses_that_do_not_overlap_run_at_once() -> None:
    """Neighbours do not wait."""
    order = AccessOrder()

    apart = [change(1, 0, 512), change(2, 512, 1024), read(3, 1024, 1536)]

    assert order.enter(apart) == apart


def test_reads_of_one_range_run_together() -> None:
    """Readers do not disturb each other."""
    order = AccessOrder()

    assert enters(order, read(1, 0, 512))
    assert enters(order, read(2, 0, 512))


def test_read_after_write_waits_for_it() -> None:
    """A read sees the write that arrived before it."""
    order = AccessOrder()
    enters(order, change(1, 0, 1024))

    assert not enters(order, read(2, 512, 2048))
    assert left(order, 1) == [2]


def test_write_after_read_waits_for_it() -> None:
    """A read does not see the write that arrived after it."""
    order = AccessOrder()
    enters(order, read(1, 0, 1024))

    assert not enters(order, change(2, 0, 512))
    assert left(order, 1) == [2]


def test_access_does_not_overtake_one_that_waits() -> None:
    """Three writes of one range run one after the other; a read behind them waits for all."""
    order = AccessOrder()
    entered = [enters(order, change(1, 0, 512)), enters(order, change(2, 0, 1024)), enters(order, change(3, 512, 1024))]
    entered.append(enters(order, read(4, 512, 1024)))

    assert entered == [True, False, False, False]
    assert left(order, 1) == [2]
    assert left(order, 2) == [3]
    assert left(order, 3) == [4]
    assert left(order, 4) == []


def test_leave_lets_every_reader_that_waited_run() -> None:
    """Readers behind one write start together, in order; the write behind them waits for both."""
    order = AccessOrder()
    enters(order, change(1, 0, 512))
    for operation in (read(2, 0, 512), read(3, 0, 512), change(4, 0, 512)):
        order.enter([operation])

    assert left(order, 1) == [2, 3]
    assert left(order, 3) == []
    assert left(order, 2) == [4]


def test_leave_of_an_unknown_token_changes_nothing() -> None:
    """Leaving twice is harmless."""
    order = AccessOrder()
    enters(order, change(1, 0, 512))
    left(order, 1)

    assert left(order, 1) == []
    assert enters(order, change(2, 0, 512))
