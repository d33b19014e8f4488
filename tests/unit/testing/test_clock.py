"""Virtual time."""

from __future__ import annotations

import pytest

from iovirt_dist.testing.clock import VirtualClock


def test_clock_advance_moves_time_by_what_is_asked() -> None:
    """Time moves only when somebody moves it."""
    clock = VirtualClock(5)

    moved = clock.advance(10)

    assert (moved, clock.now_ns, clock()) == (15, 15, 15)


def test_clock_advance_to_a_time_that_is_over_changes_nothing() -> None:
    """Time never goes back."""
    clock = VirtualClock(100)

    assert clock.advance_to(50) == 100
    with pytest.raises(ValueError, match="does not go back by 1 ns"):
        clock.advance(-1)
