"""The MC146818 clock and CMOS memory against the data sheet and what PC firmware reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from iovirt_dist.hypervisor.vdev import rtc_calendar as calendar
from iovirt_dist.hypervisor.vdev.cmos import Cmos, rate_ticks

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
MICROSECOND_NS = 1_000
# Saturday, 28 February 2032, 23:59:58.25 UTC, in a leap year
POWER_ON_NS = int(datetime(2032, 2, 28, 23, 59, 58, tzinfo=UTC).timestamp()) * SECOND_NS + 250 * MILLISECOND_NS
FIRST_UPDATE_NS = 750 * MILLISECOND_NS
TIME_REGISTERS = (0x32, 9, 8, 7, 6, 4, 2, 0)
SET_24_BCD, RUN_24_BCD = 0x82, 0x02


class Bench:
    """A CMOS with its IRQ 8 recorded."""

    def __init__(self, memory_bytes: int = 128 << 20) -> None:
        self.irq = False
        self.rises = 0
        self.now_ns = 0
        self.cmos = Cmos(self._irq8, memory_bytes, POWER_ON_NS)

    def _irq8(self, level: bool) -> None:
        self.rises += level and not self.irq
        self.irq = level

    def at(self, now_ns: int) -> Bench:
        """Move to a time."""
        self.now_ns = now_ns
        return self

    def read(self, index: int) -> int:
        """Read a CMOS byte."""
        self.cmos.write(0, 1, index, self.now_ns)
        return self.cmos.read(1, 1, self.now_ns)

    def write(self, index: int, value: int) -> None:
        """Write a CMOS byte."""
        self.cmos.write(0, 1, index, self.now_ns)
        self.cmos.write(1, 1, value, self.now_ns)

    def time(self) -> list[int]:
        """Century, year, month, date, day of week, hours, minutes, seconds."""
        return [self.read(index) for index in TIME_REGISTERS]

    def word(self, index: int) -> int:
        """A little-endian pair of bytes."""
        return self.read(index) | self.read(index + 1) << 8

    def run(self) -> int:
        """Serve the next deadline and return it."""
        deadline_ns = self.cmos.deadline_ns()
        assert deadline_ns is not None
        self.now_ns = deadline_ns
        self.cmos.advance(deadline_ns)
        return deadline_ns


@pytest.fixture
def bench() -> Bench:
    """A machine with 128 MiB at power-on."""
    return Bench()


def test_cmos_at_power_on_shows_wall_clock_time(bench: Bench) -> None:
    """The registers hold UTC in BCD and 24-hour format."""
    assert bench.time() == [0x20, 0x32, 0x02, 0x28, 7, 0x23, 0x59, 0x58]


def test_cmos_counts_over_midnight_into_the_leap_day(bench: Bench) -> None:
    """Two updates after 23:59:58 it is 29 February, a Sunday."""
    assert bench.at(FIRST_UPDATE_NS - 1).read(0) == 0x58
    assert bench.at(FIRST_UPDATE_NS).read(0) == 0x59

    assert bench.at(FIRST_UPDATE_NS + SECOND_NS).time() == [0x20, 0x32, 0x02, 0x29, 1, 0x00, 0x00, 0x00]


@pytest.mark.parametrize("days", [1, 2, 59, 307, 365, 7000, 24_000])
def test_cmos_after_days_agrees_with_the_calendar(bench: Bench, days: int) -> None:
    """A guest that was away for days, or decades, sees the right date."""
    now_ns = days * 86_400 * SECOND_NS
    expected = datetime.fromtimestamp((POWER_ON_NS + now_ns) // SECOND_NS, UTC)

    digits = "".join(f"{value:02x}" for value in bench.at(now_ns).time())

    assert digits[:8] + digits[10:] == expected.strftime("%Y%m%d%H%M%S")
    assert int(digits[8:10]) == expected.isoweekday() % 7 + 1


def test_cmos_set_bit_holds_the_time_until_it_is_cleared(bench: Bench) -> None:
    """The way to set the clock: SET, write, clear; the second's phase is kept."""
    bench.write(0x0B, SET_24_BCD)
    for index, value in zip(TIME_REGISTERS, (0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59), strict=True):
        bench.at(bench.now_ns + SECOND_NS).write(index, value)

    held = bench.time()
    bench.write(0x0B, RUN_24_BCD)
    bench.at(bench.now_ns + SECOND_NS)

    assert held == [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]
    assert bench.time() == [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]


def test_cmos_register_written_while_running_is_counted_from(bench: Bench) -> None:
    """Without SET each write takes effect at the next update."""
    bench.write(0x04, 0x12)

    assert bench.at(FIRST_UPDATE_NS).time()[-3:] == [0x12, 0x59, 0x59]


@pytest.mark.parametrize(
    ("control", "before", "after"),
    [
        (0x02, 0x11, 0x12),  # BCD, 24 hours
        (0x02, 0x23, 0x00),
        (0x06, 23, 0),  # binary, 24 hours
        (0x00, 0x11, 0x92),  # BCD, 12 hours: 11 AM to 12 PM
        (0x00, 0x12, 0x01),  # 12 AM to 1 AM
        (0x00, 0x91, 0x12),  # 11 PM to 12 AM
        (0x04, 0x80 | 12, 0x80 | 1),  # binary, 12 hours
    ],
)
def test_cmos_hour_formats(bench: Bench, control: int, before: int, after: int) -> None:
    """All four formats of the data sheet's table of data modes."""
    fifty_nine = 59 if control & 4 else 0x59
    bench.write(0x0B, 0x80 | control)
    for index, value in ((4, before), (2, fifty_nine), (0, fifty_nine)):
        bench.write(index, value)
    bench.write(0x0B, control)

    assert bench.at(FIRST_UPDATE_NS).read(4) == after


def test_cmos_nonsense_date_is_carried_over(bench: Bench) -> None:
    """31 February counts on as 3 March (2 March in a leap year); nothing breaks."""
    bench.write(0x0B, SET_24_BCD)
    bench.write(7, 0x31)
    bench.write(0x0B, RUN_24_BCD)

    assert bench.at(FIRST_UPDATE_NS).time()[:4] == [0x20, 0x32, 0x03, 0x02]


def test_cmos_uip_announces_the_update(bench: Bench) -> None:
    """UIP is high for the 244 us before the update cycle and its 1984 us, and low with the new time."""
    offsets_us = (-2229, -2228, -1, 0)

    levels = [bench.at(FIRST_UPDATE_NS + us * MICROSECOND_NS).read(0x0A) >> 7 for us in offsets_us]

    assert levels == [0, 1, 1, 0]


@pytest.mark.parametrize(("index", "value"), [(0x0B, SET_24_BCD), (0x0A, 0x76)])
def test_cmos_uip_stays_low_while_updates_are_stopped(bench: Bench, index: int, value: int) -> None:
    """Neither with SET nor with the divider in reset is there an update to announce."""
    bench.write(index, value)

    assert bench.at(FIRST_UPDATE_NS - MICROSECOND_NS).read(0x0A) & 0x80 == 0


def test_cmos_divider_released_updates_after_half_a_second(bench: Bench) -> None:
    """Data sheet, "Divider Control": the first update comes 500 ms after the reset ends."""
    bench.write(0x0A, 0x76)
    bench.at(10 * SECOND_NS)
    held = bench.read(0)
    bench.write(0x0A, 0x26)

    readings = [bench.at(10 * SECOND_NS + ms * MILLISECOND_NS).read(0) for ms in (499, 500, 1499, 1500)]

    assert [held, *readings] == [0x58, 0x58, 0x59, 0x59, 0x00]


def test_cmos_update_interrupt_comes_each_second_once_acknowledged(bench: Bench) -> None:
    """UIE: IRQ 8 rises at the update and falls when register C is read."""
    bench.write(0x0B, 0x12)
    first_ns = bench.run()
    waiting = bench.cmos.deadline_ns()

    flags = bench.read(0x0C)

    assert (first_ns, waiting, flags & 0x90) == (FIRST_UPDATE_NS, None, 0x90)
    assert (bench.irq, bench.rises) == (False, 1)
    assert bench.run() == FIRST_UPDATE_NS + SECOND_NS


def test_cmos_alarm_interrupt_at_the_matching_second(bench: Bench) -> None:
    """AIE: hours, minutes and seconds must match."""
    for index, value in ((1, 0x30), (3, 0x02), (5, 0x07)):
        bench.write(index, value)
    bench.write(0x0B, 0x22)

    deadline_ns = bench.run()

    assert bench.time()[-3:] == [0x07, 0x02, 0x30]
    assert deadline_ns == FIRST_UPDATE_NS + (1 + 7 * 3600 + 2 * 60 + 30) * SECOND_NS
    assert bench.read(0x0C) & 0xA0 == 0xA0


@pytest.mark.parametrize(("alarm", "delay_seconds"), [((0xFF, 0xC0, 0xFF), 0), ((0x58, 0xC0, 0xC0), 59)])
def test_cmos_alarm_bytes_with_both_top_bits_match_anything(
    bench: Bench, alarm: tuple[int, int, int], delay_seconds: int
) -> None:
    """C0h to FFh are don't-care codes: every second, every minute."""
    for index, value in zip((1, 3, 5), alarm, strict=True):
        bench.write(index, value)
    bench.write(0x0B, 0x22)

    assert bench.run() == FIRST_UPDATE_NS + delay_seconds * SECOND_NS


def test_cmos_alarm_that_never_matches_is_not_timed(bench: Bench) -> None:
    """An alarm at 75 seconds past the minute costs nothing."""
    bench.write(1, 0x75)
    bench.write(0x0B, 0x22)

    assert bench.cmos.deadline_ns() is None


@pytest.mark.parametrize(("index", "searches"), [(0x40, 0), (0x0A, 0), (1, 1), (0x0B, 1)])
def test_cmos_alarm_is_searched_again_after_a_write_that_matters_to_it(
    bench: Bench, index: int, searches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is asked for after every access; memory and rate change no alarm."""
    bench.write(0x0B, 0x22)
    bench.cmos.deadline_ns()
    searched: list[bytearray] = []
    monkeypatch.setattr(calendar, "seconds_until_alarm", searched.append)

    bench.write(index, 0x22)
    bench.cmos.deadline_ns()

    assert len(searched) == searches


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_cmos_periodic_rates(rate: int, hertz: int) -> None:
    """Table "Periodic Interrupt Rate" for the 32.768 kHz time base."""
    assert rate_ticks(rate) * hertz == 32_768


def test_cmos_periodic_interrupt_needs_register_c_between(bench: Bench) -> None:
    """PIE at 1024 Hz: one rise per reading of register C, however late, in the phase of the divider."""
    bench.write(0x0A, 0x26)
    bench.write(0x0B, 0x42)
    bench.read(0x0C)
    first_ns = bench.run()

    bench.at(first_ns + SECOND_NS + 1).cmos.advance(bench.now_ns)
    flags = bench.read(0x0C)
    next_ns = bench.run()

    assert bench.rises == 2
    assert flags & 0xC0 == 0xC0
    assert 0 < next_ns - first_ns - SECOND_NS <= SECOND_NS // 1024


def test_cmos_enabling_a_pending_flag_interrupts_at_once(bench: Bench) -> None:
    """Flags are set whether enabled or not; IRQF follows flag AND enable."""
    bench.at(FIRST_UPDATE_NS).cmos.advance(bench.now_ns)
    assert not bench.irq

    bench.write(0x0B, 0x12)

    assert bench.irq


def test_cmos_set_clears_the_update_enable(bench: Bench) -> None:
    """Data sheet, "Register B": SET going high clears UIE."""
    bench.write(0x0B, 0x12)
    bench.write(0x0B, 0x92)

    assert bench.read(0x0B) == 0x82


def test_cmos_status_registers_c_and_d_are_read_only(bench: Bench) -> None:
    """VRT is always set, flags cannot be written."""
    bench.write(0x0C, 0xFF)
    bench.write(0x0D, 0x00)

    assert (bench.read(0x0C), bench.read(0x0D)) == (0x00, 0x80)


def test_cmos_nmi_bit_of_the_index_port_is_ignored(bench: Bench) -> None:
    """70h bit 7 is not part of the index; the port reads as all ones."""
    bench.write(0x40, 0x5A)

    assert bench.read(0x80 | 0x40) == 0x5A
    assert bench.cmos.read(0, 1, 0) == 0xFF


@pytest.mark.parametrize(
    ("memory_bytes", "extended_kib", "above_16m_64kib"),
    [
        (2 << 20, 1024, 0),
        (16 << 20, 15 * 1024, 0),
        (64 << 20, 63 * 1024, 768),
        (128 << 20, 0xFFFF, 0x0700),
        (3 << 30, 0xFFFF, 0xBF00),
    ],
)
def test_cmos_memory_sizes_as_firmware_expects(memory_bytes: int, extended_kib: int, above_16m_64kib: int) -> None:
    """640 KiB below 1 MiB; KiB above 1 MiB twice; 64 KiB units above 16 MiB."""
    bench = Bench(memory_bytes)

    assert bench.word(0x15) == 640
    assert (bench.word(0x17), bench.word(0x30)) == (extended_kib, extended_kib)
    assert bench.word(0x34) == above_16m_64kib


def test_cmos_checksum_covers_10h_to_2dh(bench: Bench) -> None:
    """Firmware believes the memory only if the sum at 2Eh (high byte first) is right."""
    total = sum(bench.read(index) for index in range(0x10, 0x2E))

    assert bench.read(0x2E) << 8 | bench.read(0x2F) == total
