"""Interrupt inputs as monotone counts."""

from __future__ import annotations

from iovirt_dist.hypervisor.irqchip.lines import InterruptLines


def test_line_that_rises_and_falls_counts_both() -> None:
    """Odd is asserted."""
    lines = InterruptLines()
    intr = lines.line(0)

    intr(True)
    risen = lines.take_changes()
    intr(False)

    assert (risen, lines.take_changes()) == ((0, 1), (0, 2))


def test_level_that_is_there_already_changes_nothing() -> None:
    """Devices may drive as often as they like."""
    lines = InterruptLines()
    intr = lines.line(0)
    intr(False)
    before = lines.changed
    intr(True)
    intr(True)

    assert not before
    assert lines.take_changes() == (0, 1)
    assert not lines.changed


def test_changes_between_two_looks_are_coalesced_into_the_last_count() -> None:
    """A pulse is not lost: the count moved by two."""
    lines = InterruptLines()
    intr = lines.line(9)
    for level in (True, False, True, False):
        intr(level)

    assert lines.take_changes() == (9, 4)
    assert lines.raised() == 2


def test_changes_of_several_lines_are_told_in_order_of_lines() -> None:
    """Flat pairs, as the reply carries them."""
    lines = InterruptLines()
    lines.line(11)(True)
    lines.line(3)(True)
    lines.line(7)

    assert lines.take_changes() == (3, 1, 11, 1)
    assert lines.take_changes() == ()
