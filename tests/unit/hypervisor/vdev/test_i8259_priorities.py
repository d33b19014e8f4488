"""Priorities of the 8259 pair: nesting, end of interrupt, rotation and special modes."""

from __future__ import annotations

import pytest

from tests.unit.hypervisor.vdev.pic_bench import (
    CLEAR_SPECIAL_MASK,
    MASTER_BASE,
    NONSPECIFIC_EOI,
    READ_IRR,
    READ_ISR,
    ROTATE_IN_AEOI,
    ROTATE_ON_EOI,
    SET_PRIORITY,
    SET_SPECIAL_MASK,
    SLAVE_BASE,
    SPECIFIC_EOI,
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    """A pair as a PC's firmware initialises it, nothing masked."""
    bench = Bench()
    bench.initialise()
    return bench


def test_pic_several_requests_are_taken_in_priority_order(bench: Bench) -> None:
    """IRQ 0 is first, the slave's eight come between IRQ 1 and IRQ 3."""
    bench.pulse(7, 3, 15, 8, 1, 0)

    vectors = []
    for eoi_slave in (False, False, True, True, False, False):
        vectors += bench.take(1)
        bench.slave(0, NONSPECIFIC_EOI if eoi_slave else 0x40)
        bench.master(0, NONSPECIFIC_EOI)

    assert vectors == [0x20, 0x21, 0x28, 0x2F, 0x23, 0x27]
    assert not bench.intr


def test_pic_lower_priority_waits_while_higher_is_in_service(bench: Bench) -> None:
    """Fully nested mode: equal and lower levels wait for the EOI."""
    bench.pulse(3)
    bench.take(1)

    bench.pulse(3, 5)

    assert not bench.intr
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.intr


def test_pic_higher_priority_interrupts_the_one_in_service(bench: Bench) -> None:
    """Fully nested mode: a higher level nests, and a non-specific EOI ends the inner one first."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(1)

    vectors = bench.take(1)

    assert vectors == [MASTER_BASE + 1]
    assert bench.master_reads(READ_ISR) == 0b100010
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b100000


def test_pic_specific_eoi_ends_the_level_it_names(bench: Bench) -> None:
    """A specific EOI may end the outer interrupt before the inner one."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(1)
    bench.take(1)

    bench.master(0, SPECIFIC_EOI | 5)

    assert bench.master_reads(READ_ISR) == 0b000010


def test_pic_mask_holds_a_request_back_without_losing_it(bench: Bench) -> None:
    """IMR acts behind IRR: the request shows there and is served once unmasked."""
    bench.master(1, 0x10)
    bench.pulse(4)

    assert (bench.intr, bench.master_reads(READ_IRR)) == (False, 0x10)
    bench.master(1, 0x00)

    assert bench.take(1) == [MASTER_BASE + 4]


def test_pic_auto_eoi_sets_no_in_service_bit(bench: Bench) -> None:
    """With ICW4.AEOI the next request is presented at once; INTR falls in between."""
    bench.initialise(icw4_master=0x03)
    bench.pulse(3, 6)

    assert bench.take(2) == [MASTER_BASE + 3, MASTER_BASE + 6]
    assert bench.master_reads(READ_ISR) == 0


def test_pic_auto_eoi_slave_gives_the_master_an_edge_per_request(bench: Bench) -> None:
    """Two requests of an AEOI slave both pass the edge-triggered cascade input."""
    bench.initialise(icw4_master=0x03, icw4_slave=0x03)
    bench.pulse(9, 12)

    assert bench.take(2) == [SLAVE_BASE + 1, SLAVE_BASE + 4]
    assert not bench.intr


def test_pic_rotate_on_nonspecific_eoi_makes_the_served_level_lowest(bench: Bench) -> None:
    """Automatic rotation: after IRQ 4, IRQ 5 is the highest and IRQ 4 the lowest (data sheet, figure of rotation)."""
    bench.pulse(4)
    bench.take(1)

    bench.master(0, ROTATE_ON_EOI)
    bench.pulse(4, 6, 0)

    assert bench.take(1) == [MASTER_BASE + 6]


def test_pic_rotate_on_specific_eoi_names_the_lowest(bench: Bench) -> None:
    """Rotation on a specific EOI ends the named level and makes it the lowest."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(0)
    bench.take(1)

    bench.master(0, 0xE0 | 5)

    assert bench.master_reads(READ_ISR) == 0b000001
    bench.master(0, SPECIFIC_EOI | 0)
    bench.pulse(5, 6)
    assert bench.take(1) == [MASTER_BASE + 6]


def test_pic_set_priority_changes_the_order_only(bench: Bench) -> None:
    """L2-L0 of the set-priority command name the lowest level."""
    bench.master(0, SET_PRIORITY | 2)
    bench.pulse(0, 3, 7)

    assert bench.take(1) == [MASTER_BASE + 3]


def test_pic_rotate_in_auto_eoi_serves_in_turn(bench: Bench) -> None:
    """With rotation in AEOI mode a level that was just served goes to the end; clearing it stops that."""
    bench.initialise(icw4_master=0x03)
    bench.master(0, ROTATE_IN_AEOI)
    bench.pulse(3, 4)
    first = bench.take(1)
    bench.pulse(3)

    second = bench.take(1)

    assert first + second == [MASTER_BASE + 3, MASTER_BASE + 4]
    bench.take(1)
    bench.master(0, 0x00)
    bench.pulse(5, 6)
    bench.take(1)
    bench.pulse(5)
    assert bench.take(1) == [MASTER_BASE + 5]


def test_pic_special_mask_mode_lets_lower_levels_in(bench: Bench) -> None:
    """A masked in-service level inhibits nobody in special mask mode, and only there."""
    bench.pulse(1)
    bench.take(1)
    bench.master(1, 0x02)
    bench.pulse(6)
    assert not bench.intr

    bench.master(0, SET_SPECIAL_MASK)
    assert bench.take(1) == [MASTER_BASE + 6]

    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b000010
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b000010
    bench.master(0, CLEAR_SPECIAL_MASK)
    bench.pulse(6)
    assert not bench.intr


def test_pic_slave_in_service_is_locked_out_in_plain_nested_mode(bench: Bench) -> None:
    """Without SFNM the master takes nothing more from the slave until its own EOI."""
    bench.pulse(12)
    bench.take(1)

    bench.pulse(8)

    assert not bench.intr


def test_pic_special_fully_nested_lets_the_slave_nest(bench: Bench) -> None:
    """With SFNM a higher request of the same slave gets through, a lower one of the master still waits."""
    bench.initialise(icw4_master=0x11)
    bench.pulse(12)
    bench.take(1)
    bench.pulse(3)
    assert not bench.intr

    bench.pulse(8)

    assert bench.take(1) == [SLAVE_BASE + 0]
