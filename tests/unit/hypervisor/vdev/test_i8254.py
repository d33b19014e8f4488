"""The 8254 and port 61h against the 8254 and 82371SB data sheets."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.i8254 import MIN_PERIOD_NS, Pit8254, tick_ns, ticks

HOUR_NS = 3600 * 1_000_000_000
CONTROL = 3


class Bench:
    """A timer whose clock is counted in ticks, with the edges of IRQ 0 recorded."""

    def __init__(self) -> None:
        self.edges: list[tuple[int, bool]] = []
        self.now_ns = 0
        self.observed = True
        self.pit = Pit8254(self._irq0, lambda: self.observed)

    def _irq0(self, level: bool) -> None:
        self.edges.append((ticks(self.now_ns), level))

    def at(self, tick: int) -> Bench:
        """Move to a clock tick."""
        self.now_ns = tick_ns(tick)
        return self

    def write(self, port: int, *values: int) -> None:
        """Write bytes to 40h + port."""
        for value in values:
            self.pit.counter_ports.write(port, 1, value, self.now_ns)

    def read(self, port: int, count: int = 1) -> list[int]:
        """Read bytes from 40h + port."""
        return [self.pit.counter_ports.read(port, 1, self.now_ns) for _ in range(count)]

    def port_b(self) -> int:
        """Read port 61h."""
        return self.pit.system_control_b.read(0, 1, self.now_ns)

    def gate2(self, level: int) -> None:
        """Set the gate of counter 2."""
        self.pit.system_control_b.write(0, 1, level, self.now_ns)

    def run(self, deadlines: int) -> None:
        """Serve this many deadlines, as the hypervisor's loop does."""
        for _ in range(deadlines):
            deadline_ns = self.pit.deadline_ns()
            assert deadline_ns is not None
            self.now_ns = deadline_ns
            self.pit.advance(deadline_ns)


@pytest.fixture
def bench() -> Bench:
    """A timer at power-on."""
    return Bench()


def test_pit_clock_is_105_88_megahertz() -> None:
    """88 seconds are exactly 105 million ticks, and a tick begins at the first nanosecond that shows it."""
    assert ticks(88 * 1_000_000_000) == 105_000_000
    assert [ticks(tick_ns(n)) for n in (0, 1, 2, 104, 105)] == [0, 1, 2, 104, 105]
    assert [ticks(tick_ns(n) - 1) for n in (1, 2, 104, 105)] == [0, 1, 103, 104]


def test_pit_at_power_on_is_not_timed(bench: Bench) -> None:
    """Nothing runs before a control word."""
    assert bench.pit.deadline_ns() is None


def test_pit_mode0_raises_out_once_n_plus_1_clocks_after_the_count(bench: Bench) -> None:
    """Interrupt on terminal count: one edge, then no deadline any more."""
    bench.write(CONTROL, 0x30)
    bench.write(0, 100, 0)

    bench.run(1)

    assert bench.edges == [(101, True)]
    assert bench.pit.deadline_ns() is None


def test_pit_mode0_first_byte_of_a_new_count_stops_and_lowers_out(bench: Bench) -> None:
    """A two-byte count written in two steps must not expire in between."""
    bench.write(CONTROL, 0x30)
    bench.write(0, 10, 0)
    bench.at(20).write(0, 10)

    assert bench.pit.deadline_ns() is None
    bench.at(30).write(0, 0)
    bench.run(1)

    assert bench.edges == [(20, True), (20, False), (41, True)]


def test_pit_mode2_interrupts_every_n_clocks(bench: Bench) -> None:
    """Rate generator: OUT is low for the last clock of each period."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0xA9, 0x04)
    bench.run(3)

    rises = [tick for tick, level in bench.edges if level]

    assert rises == [0, 1 + 1193, 1 + 2 * 1193, 1 + 3 * 1193]


def test_pit_mode3_is_high_for_the_longer_half_of_an_odd_count(bench: Bench) -> None:
    """Square wave: (N + 1) / 2 clocks high, (N - 1) / 2 low."""
    bench.write(CONTROL, 0x36)
    bench.write(0, 101, 0)

    levels = []
    for tick in range(1, 1 + 2 * 101):
        bench.at(tick).write(CONTROL, 0xE2)
        levels.append(bench.read(0)[0] >> 7)

    assert levels == ([1] * 51 + [0] * 50) * 2


def test_pit_mode3_new_count_waits_for_the_half_cycle(bench: Bench) -> None:
    """The half in progress keeps its length, the next one has the new one."""
    bench.write(CONTROL, 0x36)
    bench.write(0, 0, 8)
    bench.at(100).write(0, 0, 2)

    edges_ns = []
    for _ in range(3):
        bench.run(1)
        edges_ns.append(ticks(bench.now_ns))

    assert edges_ns == [1 + 1024, 1 + 1024 + 256, 1 + 1024 + 512]


def test_pit_mode2_new_count_waits_for_the_period(bench: Bench) -> None:
    """The period in progress is not disturbed; the status byte shows the null count until then."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0, 4)
    bench.at(10).write(0, 0, 1)
    bench.write(CONTROL, 0xE2)
    waiting = bench.read(0)[0]

    bench.run(2)
    bench.write(CONTROL, 0xE2)
    loaded = bench.read(0)[0]

    assert [tick for tick, level in bench.edges if level] == [0, 1025, 1281]
    assert (waiting & 0x40, loaded & 0x40) == (0x40, 0)


def test_pit_mode4_strobes_once(bench: Bench) -> None:
    """Software triggered strobe: low for one clock N + 1 clocks after the count."""
    bench.write(CONTROL, 0x38)
    bench.write(0, 100, 0)

    levels = []
    for tick in (100, 101, 102, 103):
        bench.at(tick).write(CONTROL, 0xE2)
        levels.append(bench.read(0)[0] >> 7)

    assert levels == [1, 0, 1, 1]


def test_pit_stopped_for_an_hour_gives_one_edge_and_keeps_the_phase(bench: Bench) -> None:
    """Missed ticks are discarded; the next edge comes where it would have come anyway."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0x9B, 0x2E)
    period, before = 0x2E9B, len(bench.edges)

    bench.now_ns = HOUR_NS
    bench.pit.advance(HOUR_NS)

    rises = [level for _, level in bench.edges[before:] if level]
    deadline_ns = bench.pit.deadline_ns()
    assert len(rises) == 1
    assert deadline_ns is not None
    assert deadline_ns > HOUR_NS
    assert (ticks(deadline_ns) - 1) % period == 0
    assert ticks(deadline_ns) - ticks(HOUR_NS) <= period


def test_pit_absurd_rate_is_bounded(bench: Bench) -> None:
    """A guest that programs 600 kHz gets 20,000 interrupts a second, not a hypervisor that does nothing else."""
    bench.write(CONTROL, 0x14)
    bench.write(0, 2)

    bench.run(20)

    assert bench.now_ns >= 20 * MIN_PERIOD_NS


def test_pit_unobserved_has_no_deadline_and_keeps_one_edge(bench: Bench) -> None:
    """While IRQ 0 is masked nobody is woken; once it is not, the edges of that time come as one."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0, 4)
    bench.observed = False
    before = len(bench.edges)
    masked = bench.pit.deadline_ns()

    bench.at(5000)
    bench.observed = True
    due_ns = bench.pit.deadline_ns()
    bench.pit.advance(bench.now_ns)

    assert masked is None
    assert due_ns is not None
    assert due_ns <= bench.now_ns
    assert [level for _, level in bench.edges[before:]] == [False, True]


def test_pit_latch_command_freezes_the_count_until_read(bench: Bench) -> None:
    """Both bytes belong to the moment of the latch; a second latch before they are read changes nothing."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0x00, 0x10)
    bench.at(1 + 0x234).write(CONTROL, 0x00)
    bench.at(1 + 0x300).write(CONTROL, 0x00)

    latched = bench.at(1 + 0x400).read(0, 2)
    running = bench.read(0, 2)

    assert latched == [0xCC, 0x0D]
    assert running == [0x00, 0x0C]


def test_pit_latched_count_does_not_disturb_the_byte_order(bench: Bench) -> None:
    """Low and high byte alternate; with one-byte access only that byte comes."""
    bench.write(CONTROL, 0x24)
    bench.write(0, 0x12)

    bench.at(1).write(CONTROL, 0x00)

    assert bench.read(0, 3) == [0x12, 0x12, 0x12]


def test_pit_read_back_latches_status_before_count(bench: Bench) -> None:
    """The first read returns the status, the next two the count of that moment."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0x00, 0x10)

    bench.at(1 + 0x234).write(CONTROL, 0xC2)

    assert bench.at(1 + 0x500).read(0, 3) == [0x80 | 0x34, 0xCC, 0x0D]


def test_pit_read_back_serves_several_counters(bench: Bench) -> None:
    """One command latches the counters that it selects, and no other."""
    bench.write(CONTROL, 0x14, 0x54, 0x94)
    bench.at(5).write(CONTROL, 0xE0 | 0x0C)

    assert bench.read(1) + bench.read(2) == [0xD4, 0xD4]
    assert bench.read(0) == [0]


def test_pit_status_before_a_count_shows_null_and_the_mode_as_written(bench: Bench) -> None:
    """Mode 6 works as 2 and reads back as 6; OUT is high, the count null."""
    bench.write(CONTROL, 0x3C, 0xE2)

    assert bench.read(0) == [0x80 | 0x40 | 0x3C]


def test_pit_bcd_counts_in_decimal(bench: Bench) -> None:
    """1000h in BCD is a thousand; it reads back in BCD."""
    bench.write(CONTROL, 0x35)
    bench.write(0, 0x00, 0x10)

    bench.at(1 + 1).write(CONTROL, 0x00)

    assert bench.read(0, 2) == [0x99, 0x09]
    assert bench.pit.deadline_ns() == tick_ns(1 + 1000)


@pytest.mark.parametrize(("control", "period"), [(0x34, 65_536), (0x35, 10_000)])
def test_pit_count_zero_is_the_largest(bench: Bench, control: int, period: int) -> None:
    """0 stands for 2**16 in binary and 10**4 in BCD."""
    bench.write(CONTROL, control)
    bench.write(0, 0, 0)

    assert bench.pit.deadline_ns() == tick_ns(1 + period)


def test_pit_control_port_reads_as_an_undriven_bus(bench: Bench) -> None:
    """The control word register cannot be read."""
    assert bench.read(CONTROL) == [0xFF]


def test_port_b_gate_starts_and_pauses_counter_2(bench: Bench) -> None:
    """Firmware's delay: gate counter 2 in mode 0 and poll OUT2 in bit 5."""
    bench.gate2(0)
    bench.write(CONTROL, 0xB0)
    bench.write(2, 100, 0)
    bench.at(500)
    gated = bench.port_b() & 0x20

    bench.gate2(1)
    early = bench.at(599).port_b() & 0x20
    done = bench.at(601).port_b() & 0x20

    assert (gated, early, done) == (0, 0, 0x20)


def test_port_b_gate_triggers_a_one_shot(bench: Bench) -> None:
    """Mode 1: OUT goes low with the rising gate and high N clocks later; a second edge starts it again."""
    bench.write(CONTROL, 0xB2)
    bench.write(2, 100, 0)
    levels = [bench.at(10).port_b() & 0x20]
    bench.at(20).gate2(1)
    levels += [bench.at(tick).port_b() & 0x20 for tick in (21, 120)]
    bench.gate2(0)
    bench.gate2(1)
    levels += [bench.at(tick).port_b() & 0x20 for tick in (122, 220, 221)]

    assert levels == [0x20, 0, 0, 0, 0, 0x20]


def test_port_b_keeps_the_low_bits_and_toggles_refresh(bench: Bench) -> None:
    """Bits 0-3 are read-write; bit 4 changes every 18 clocks, about 15 us."""
    bench.pit.system_control_b.write(0, 1, 0xFF, 0)

    toggles = [bench.at(tick).port_b() >> 4 & 1 for tick in (0, 17, 18, 35, 36)]

    assert bench.port_b() & 0x0F == 0x0F
    assert toggles == [0, 0, 1, 1, 0]


def test_pit_restore_sets_the_line_and_the_next_edge(bench: Bench) -> None:
    """A restored timer drives IRQ 0 as the original did and wakes at the same instant."""
    bench.write(CONTROL, 0x34)
    bench.write(0, 0, 4)
    twin = Bench()

    twin.pit.restore(bench.pit.state())

    assert [level for _, level in twin.edges] == [True]
    assert twin.pit.deadline_ns() == bench.pit.deadline_ns()
