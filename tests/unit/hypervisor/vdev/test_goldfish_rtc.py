"""The goldfish clock of `virt`, and what Linux's and U-Boot's drivers do with it."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.goldfish_rtc import GoldfishRtc

TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH = 0x00, 0x04, 0x08, 0x0C
IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = 0x10, 0x14, 0x18, 0x1C
WALL_NS = 1_790_000_000_000_000_000


class Bench:
    """A clock and its output."""

    def __init__(self) -> None:
        self.edges: list[bool] = []
        self.rtc = GoldfishRtc(self.edges.append, WALL_NS)

    def load(self, offset: int, now_ns: int = 0) -> int:
        """LW."""
        return self.rtc.read(offset, 4, now_ns)

    def store(self, offset: int, value: int, now_ns: int = 0) -> None:
        """SW."""
        self.rtc.write(offset, 4, value, now_ns)

    def time(self, now_ns: int) -> int:
        """Read the clock as drivers do: low half, then high half."""
        low = self.load(TIME_LOW, now_ns)
        return self.load(TIME_HIGH, now_ns) << 32 | low

    def set_alarm(self, wall_ns: int, now_ns: int = 0) -> None:
        """Arm the alarm as Linux does."""
        self.store(ALARM_HIGH, wall_ns >> 32, now_ns)
        self.store(ALARM_LOW, wall_ns & 0xFFFF_FFFF, now_ns)
        self.store(IRQ_ENABLED, 1, now_ns)


def test_rtc_shows_wall_time_that_runs_with_the_machine() -> None:
    """Power-on wall time plus the machine's time."""
    bench = Bench()

    assert bench.time(123_456_789) == WALL_NS + 123_456_789


def test_rtc_high_half_is_of_the_instant_of_the_low_half() -> None:
    """Reading TIME_LOW latches, so a carry between the reads does no harm."""
    bench = Bench()
    to_carry_ns = (1 << 32) - (WALL_NS & 0xFFFF_FFFF)

    low = bench.load(TIME_LOW, to_carry_ns - 1)
    high = bench.load(TIME_HIGH, to_carry_ns + 1)

    assert high << 32 | low == WALL_NS + to_carry_ns - 1


def test_rtc_set_by_its_halves_runs_from_there() -> None:
    """U-Boot's `date` command writes the high half, then the low half."""
    bench = Bench()

    bench.store(TIME_HIGH, 0x1234, 1000)
    bench.store(TIME_LOW, 0x5678, 1000)

    assert bench.time(1010) == 0x1234_0000_5678 + 10


def test_rtc_alarm_interrupts_when_its_time_comes() -> None:
    """Armed, expired, cleared."""
    bench = Bench()
    bench.set_alarm(WALL_NS + 500, now_ns=100)
    armed = (bench.load(ALARM_STATUS, 100), bench.rtc.deadline_ns())

    bench.rtc.advance(499)
    early = list(bench.edges)
    bench.rtc.advance(500)
    expired = (bench.load(ALARM_STATUS, 500), bench.rtc.deadline_ns())
    bench.store(CLEAR_INTERRUPT, 1, 500)

    assert (armed, early, expired) == ((1, 500), [], (0, None))
    assert bench.edges == [True, False]


def test_rtc_alarm_in_the_past_expires_at_once() -> None:
    """No waiting for a wrap-around."""
    bench = Bench()

    bench.set_alarm(WALL_NS - 1)

    assert bench.edges == [True]


def test_rtc_alarm_without_enabled_interrupt_waits_for_it() -> None:
    """The expired alarm stays pending until interrupts are enabled."""
    bench = Bench()
    bench.set_alarm(WALL_NS + 10)
    bench.store(IRQ_ENABLED, 0)
    bench.rtc.advance(10)
    masked = list(bench.edges)

    bench.store(IRQ_ENABLED, 1, 11)

    assert (masked, bench.edges) == ([], [True])


def test_rtc_alarm_cleared_does_not_expire() -> None:
    """CLEAR_ALARM disarms."""
    bench = Bench()
    bench.set_alarm(WALL_NS + 10)

    bench.store(CLEAR_ALARM, 1)

    assert (bench.rtc.deadline_ns(), bench.load(ALARM_STATUS, 20), bench.edges) == (None, 0, [])


def test_rtc_set_forward_beyond_an_alarm_lets_it_expire() -> None:
    """An alarm is a wall time."""
    bench = Bench()
    bench.set_alarm(WALL_NS + (5 << 32))

    bench.store(TIME_HIGH, (WALL_NS >> 32) + 6)

    assert bench.edges == [True]


def test_rtc_other_widths_and_offsets_read_zero_and_do_nothing() -> None:
    """The device has 32-bit registers only."""
    bench = Bench()

    bench.rtc.write(TIME_LOW, 1, 0, 0)

    assert (bench.rtc.read(TIME_LOW, 2, 0), bench.load(0x20), bench.load(0x02)) == (0, 0, 0)
    assert bench.time(0) == WALL_NS


def test_rtc_restored_keeps_time_and_alarm() -> None:
    """The twin's alarm comes at the same instant."""
    bench, twin = Bench(), Bench()
    bench.store(TIME_HIGH, 1)
    bench.set_alarm(bench.rtc.wall_ns(0) + 99)

    twin.rtc.restore(bench.rtc.state())

    assert twin.time(5) == bench.time(5)
    assert twin.rtc.deadline_ns() == 99
