"""The 16550's receiver: FIFO, trigger levels, character timeout, breaks and overruns."""

from __future__ import annotations

import pytest

from tests.unit.hypervisor.vdev.uart_bench import (
    CHARACTER_NS,
    FCR,
    IER,
    IIR,
    LSR,
    MCR,
    RBR,
    THR,
    Bench,
)


def test_uart_receiver_without_fifo_takes_one_character() -> None:
    """`receive` returns what fitted; the caller keeps the rest."""
    bench = Bench()

    fitted = bench.uart.receive(b"abc", 0)

    assert fitted == 1
    assert bench.inp(LSR) & 0x01
    assert bench.inp(RBR) == ord("a")
    assert not bench.inp(LSR) & 0x01
    assert bench.uart.room() == 1


def test_uart_receiver_with_fifo_takes_sixteen_characters_in_order() -> None:
    """The FIFO is 16 deep and first in first out."""
    bench = Bench(fcr=0x01)

    fitted = bench.uart.receive(bytes(range(20)), 0)

    assert fitted == 16
    assert [bench.inp(RBR) for _ in range(16)] == list(range(16))
    assert bench.uart.room() == 16


@pytest.mark.parametrize(("fcr", "trigger"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_uart_receiver_interrupts_at_its_trigger_level_and_below_it_not(fcr: int, trigger: int) -> None:
    """Data available is a level: set at the trigger, gone below it."""
    bench = Bench(fcr=fcr)
    bench.out(IER, 0x01)

    bench.uart.receive(bytes(trigger - 1), 0)
    before = bench.wire.level
    bench.uart.receive(b"x", 0)
    at = (bench.wire.level, bench.inp(IIR))
    bench.inp(RBR)

    assert (before, at) == (False, (True, 0xC4))
    assert not bench.wire.level


def test_uart_character_timeout_comes_after_four_character_times() -> None:
    """Below the trigger, the time-out interrupt tells of the rest; a read of RBR clears it and restarts the timer."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"ab", 1000)
    due = bench.uart.deadline_ns()
    assert due is not None

    bench.uart.advance(due - 1)
    early = bench.wire.level
    bench.uart.advance(due)
    identity = bench.inp(IIR, due)
    bench.inp(RBR, due)

    assert abs(due - 1000 - 4 * CHARACTER_NS) < 4
    assert (early, identity) == (False, 0xCC)
    assert not bench.wire.level
    assert bench.uart.deadline_ns() == due + due - 1000


def test_uart_character_timeout_shows_to_a_read_without_a_timer_event() -> None:
    """A register access at or after the deadline sees the time-out although nobody called `advance`."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)

    assert bench.inp(IIR, 5 * CHARACTER_NS) == 0xCC


def test_uart_character_timeout_is_restarted_by_a_new_character() -> None:
    """Arrival before the time-out puts it off."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)
    first = bench.uart.deadline_ns()

    bench.uart.receive(b"b", 1000)

    assert first is not None
    assert bench.uart.deadline_ns() == first + 1000


def test_uart_character_that_arrives_after_the_timeout_starts_no_other_timer() -> None:
    """The time-out stays pending until RBR is read, so nothing is left to be timed."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)
    bench.uart.advance(5 * CHARACTER_NS)

    bench.uart.receive(b"b", 5 * CHARACTER_NS)

    assert bench.uart.deadline_ns() is None
    assert bench.inp(IIR, 5 * CHARACTER_NS) == 0xCC


def test_uart_fifo_emptied_leaves_no_timeout() -> None:
    """Nothing waits, nothing is timed."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)

    bench.inp(RBR)

    assert bench.uart.deadline_ns() is None


def test_uart_receiver_fifo_reset_throws_characters_away() -> None:
    """FCR bit 1 empties the receiver; the line falls."""
    bench = Bench(fcr=0x01)
    bench.out(IER, 0x01)
    bench.uart.receive(b"abc", 0)

    bench.out(FCR, 0x03)

    assert not bench.wire.level
    assert not bench.inp(LSR) & 0x01


def test_uart_break_shows_with_its_character_and_clears_on_read() -> None:
    """BI and the FIFO error bit; the interrupt is line status; the character is zero."""
    bench = Bench(fcr=0x01)
    bench.out(IER, 0x04)
    bench.uart.receive(b"a", 0)

    bench.uart.receive_break(0)
    behind_another = bench.inp(LSR)
    bench.inp(RBR)
    identity = bench.inp(IIR)
    at_the_head = bench.inp(LSR)

    assert behind_another & 0x90 == 0x80
    assert identity == 0xC6
    assert at_the_head & 0x91 == 0x91
    assert (bench.inp(LSR) & 0x90, bench.inp(RBR), bench.wire.level) == (0, 0, False)


def test_uart_loopback_in_character_mode_overrun_keeps_the_newest() -> None:
    """Without FIFO the second character overwrites the first and sets OE."""
    bench = Bench()
    bench.out(MCR, 0x10)

    bench.uart.write_string(THR, 1, b"AB", 0)

    assert bench.inp(LSR) & 0x03 == 0x03
    assert bench.inp(LSR) & 0x02 == 0
    assert bench.inp(RBR) == ord("B")
    assert bench.wire.calls == []


def test_uart_loopback_in_fifo_mode_overrun_keeps_the_oldest() -> None:
    """With a full FIFO the new character is lost and sets OE."""
    bench = Bench(fcr=0x01)
    bench.out(MCR, 0x10)

    bench.uart.write_string(THR, 1, bytes(range(17)), 0)

    assert bench.inp(LSR) & 0x02
    assert bench.uart.read_string(RBR, 1, 17, 0) == bytes(range(16)) + b"\0"
