"""The core-local interruptor of `virt`."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.clint import Clint

MSIP, MTIMECMP, MTIME = 0x0000, 0x4000, 0xBFF8
SECOND_NS = 1_000_000_000


class Bench:
    """A CLINT and its two outputs."""

    def __init__(self) -> None:
        self.software: list[bool] = []
        self.timer: list[bool] = []
        self.clint = Clint(self.software.append, self.timer.append)


def test_clint_time_counts_at_ten_megahertz() -> None:
    """A second is ten million ticks; part of a tick does not show."""
    bench = Bench()

    assert bench.clint.read(MTIME, 8, SECOND_NS + 99) == 10_000_000
    assert bench.clint.time(SECOND_NS + 100) == 10_000_001


def test_clint_time_is_readable_and_writable_in_halves() -> None:
    """RV32 style: two words."""
    bench = Bench()

    bench.clint.write(MTIME + 4, 4, 0x12, 0)
    bench.clint.write(MTIME, 4, 0xFFFF_FFFF, 0)

    assert bench.clint.read(MTIME, 8, 100) == 0x13_0000_0000
    assert (bench.clint.read(MTIME, 4, 100), bench.clint.read(MTIME + 4, 4, 100)) == (0, 0x13)


def test_clint_at_power_on_has_no_deadline() -> None:
    """The compare register starts as all ones."""
    bench = Bench()

    assert bench.clint.deadline_ns() is None
    assert bench.clint.read(MTIMECMP, 8, 0) == (1 << 64) - 1


def test_clint_timer_rises_at_the_deadline_and_falls_with_a_later_compare() -> None:
    """How a kernel's timer tick works."""
    bench = Bench()
    bench.clint.write(MTIMECMP, 8, 1000, 50)
    due_ns = bench.clint.deadline_ns()

    bench.clint.advance(99_999)
    early = list(bench.timer)
    bench.clint.advance(100_000)
    risen = (list(bench.timer), bench.clint.deadline_ns())
    bench.clint.write(MTIMECMP, 8, 2000, 100_000)

    assert (due_ns, early, risen) == (100_000, [], ([True], None))
    assert bench.timer == [True, False]
    assert bench.clint.deadline_ns() == 200_000


def test_clint_compare_in_the_past_interrupts_at_once() -> None:
    """A compare value at or below mtime, written in halves."""
    bench = Bench()

    bench.clint.write(MTIMECMP + 4, 4, 0, 5000)
    bench.clint.write(MTIMECMP, 4, 50, 5000)

    assert bench.timer == [True]


def test_clint_time_set_back_lowers_the_timer_and_sets_a_deadline() -> None:
    """Writing mtime compares again."""
    bench = Bench()
    bench.clint.write(MTIMECMP, 8, 10, 10_000)

    bench.clint.write(MTIME, 8, 0, 10_000)

    assert bench.timer == [True, False]
    assert bench.clint.deadline_ns() == 11_000


def test_clint_time_that_wraps_around_lowers_the_timer() -> None:
    """After 2**64 ticks mtime is below mtimecmp again."""
    bench = Bench()
    bench.clint.write(MTIMECMP, 8, 10, 0)
    bench.clint.write(MTIME, 8, (1 << 64) - 2, 0)

    bench.clint.advance(200)

    assert bench.timer == [True, False]
    assert bench.clint.deadline_ns() == 1200


def test_clint_compare_beyond_all_clocks_is_no_deadline() -> None:
    """OpenSBI writes all ones to stop the timer."""
    bench = Bench()
    bench.clint.write(MTIMECMP, 8, 10, 0)

    bench.clint.write(MTIMECMP, 8, (1 << 64) - 1, 0)

    assert bench.clint.deadline_ns() is None


@pytest.mark.parametrize(("value", "level"), [(1, True), (3, True), (2, False)])
def test_clint_software_interrupt_is_bit_zero(value: int, level: bool) -> None:
    """The rest of msip reads 0."""
    bench = Bench()

    bench.clint.write(MSIP, 4, value, 0)

    assert bench.software == [True] * level
    assert bench.clint.read(MSIP, 4, 0) == level


def test_clint_restored_keeps_outputs_and_deadline() -> None:
    """The twin's timer comes at the same instant."""
    bench, twin = Bench(), Bench()
    bench.clint.write(MSIP, 4, 1, 0)
    bench.clint.write(MTIMECMP, 8, 77, 0)

    twin.clint.restore(bench.clint.state())

    assert (twin.software[-1], twin.timer[-1], twin.clint.deadline_ns()) == (True, False, 7700)
