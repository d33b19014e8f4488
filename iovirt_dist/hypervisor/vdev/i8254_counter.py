"""One counter of the 8254: six modes, count and status latches, binary and BCD.

Source: Intel 8254 data sheet (order number 231164), sections "Programming the 8254", "Read Operations", "Mode
Definitions" and "Operation Common to All Modes" (gate summary).

A counter is not stepped. It keeps the clock tick of its last load and derives count and output from the time that
has passed since, so that a guest that was away for an hour costs as much as one that was away for a microsecond.
Counts are loaded one tick after they were written, as on the chip. Defined here where the data sheet leaves it open:
OUT is low until the first control word, a counter never loaded reads 0, a BCD digit above 9 counts by its weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH = 1, 2, 3
CONTROL_AT_POWER_ON = ACCESS_BOTH << 4


class Mode(NamedTuple):
    """One of the six modes, as functions of the ticks `d` >= 0 since the load and the count `n` >= 1.

    Attributes:
        out: OUT.
        rise: The next `d` at which OUT rises; None for never.
        change: The next `d` worth waking for: a rise, or in mode 3 also a fall, as long as OUT stays.
        element: The counting element before reduction to four digits.
        triggered: Counting starts with a rising gate only (modes 1 and 5).
        periodic: A new count waits for the end of the cycle, a low gate forces OUT high (modes 2 and 3).
    """

    out: Callable[[int, int], bool]
    rise: Callable[[int, int], int | None]
    change: Callable[[int, int], int | None]
    element: Callable[[int, int], int]
    triggered: bool = False
    periodic: bool = False


def _down(d: int, n: int) -> int:
    return n - d


def _once(d: int, n: int) -> int | None:
    return n if n > d else None


def _strobe_end(d: int, n: int) -> int | None:
    return n + 1 if n >= d else None


def _cycle_end(d: int, n: int) -> int | None:
    return (d // n + 1) * n if n > 1 else None


def _half_end(d: int, n: int) -> int | None:
    high, phase = (n + 1) // 2, d % n
    return (d - phase + (high if phase < high else n)) if n > 1 else None


def _by_two(d: int, n: int) -> int:
    high, phase = (n + 1) // 2, d % n
    return (n & ~1) - 2 * (phase if phase < high else phase - high)


_STROBE = Mode(lambda d, n: d != n, _strobe_end, _strobe_end, _down)
MODES = (
    Mode(lambda d, n: d >= n, _once, _once, _down),  # 0: interrupt on terminal count
    Mode(lambda d, n: d >= n, _once, _once, _down, triggered=True),  # 1: retriggerable one-shot
    Mode(lambda d, n: d % n != n - 1, _cycle_end, _cycle_end, lambda d, n: n - d % n, periodic=True),  # 2: rate
    Mode(lambda d, n: d % n < (n + 1) // 2, _cycle_end, _half_end, _by_two, periodic=True),  # 3: square wave
    _STROBE,  # 4: software triggered strobe
    _STROBE._replace(triggered=True),  # 5: hardware triggered strobe
)


@dataclass(slots=True)
class CounterRegisters:
    """Everything one counter remembers; times are clock ticks."""

    control: int = CONTROL_AT_POWER_ON  # low six bits of the control word
    gate: bool = True
    register: int = 0  # count register, as written
    has_register: bool = False  # written since the control word
    low_byte: int | None = None  # first byte of a two-byte write
    read_high_next: bool = False
    latched: bytes = b""  # latched count, bytes still to read
    status: int | None = None  # latched status
    null: bool = True
    start: int | None = None  # tick of the load; None while no count runs
    loaded: int = 1  # the count in use, 1..65536
    held: int | None = None  # ticks counted when the gate stopped the counter
    waiting_since: int | None = None  # tick at which the register got a count that is not in use yet
    idle_out: bool = False  # OUT while no count runs or before its load
    idle_count: int = 0
    seen: int = 0  # tick up to which rising edges have been reported


class Counter8254:
    """One of the three counters. Every method takes the current clock tick; ticks never go backwards."""

    def __init__(self, gate: bool) -> None:
        self.r = CounterRegisters(gate=gate)

    @property
    def mode(self) -> int:
        """Mode 0..5; M2 counts only where M1 is clear (data sheet, control word format)."""
        bits = self.r.control >> 1 & 7
        return bits & 3 if bits & 2 else bits

    @property
    def _modulus(self) -> int:
        return 10_000 if self.r.control & 1 else 0x10000

    def _elapsed(self, tick: int) -> int:
        r = self.r
        return r.held if r.held is not None else tick - (r.start or 0)

    def out(self, tick: int) -> bool:
        """Level of OUT."""
        r, mode = self.r, MODES[self.mode]
        if r.start is None or (mode.periodic and r.held is not None):
            return r.idle_out
        elapsed = self._elapsed(tick)
        return r.idle_out if elapsed < 0 else mode.out(elapsed, r.loaded)

    def count(self, tick: int) -> int:
        """The 16 bits that a read gets, in BCD if so programmed."""
        r = self.r
        if r.start is None:
            return r.idle_count
        value = MODES[self.mode].element(max(self._elapsed(tick), 0), r.loaded) % self._modulus
        return int(str(value), 16) if r.control & 1 else value

    def next_change(self) -> int | None:
        """First tick after the last `settle` at which a listener of OUT must look again."""
        return self._next(MODES[self.mode].change)

    def _next(self, event: Callable[[int, int], int | None]) -> int | None:
        r = self.r
        if r.start is None or r.held is not None:
            return None
        elapsed = event(max(r.seen - r.start, 0), r.loaded)
        return None if elapsed is None else r.start + elapsed

    def settle(self, tick: int) -> bool:
        """Let time pass; return whether OUT rose by itself since the last call."""
        rose = self._change_over(tick) if self.r.waiting_since is not None else False
        r = self.r
        rise = self._next(MODES[self.mode].rise)
        r.seen = tick
        if r.null and r.waiting_since is None and r.start is not None and tick >= r.start:
            r.null = False
        return rose or (rise is not None and rise <= tick)

    def _change_over(self, tick: int) -> bool:
        """Modes 2 and 3: at the end of the cycle (half-cycle) the waiting count comes into use."""
        r, mode = self.r, MODES[self.mode]
        if not mode.periodic or r.start is None or r.held is not None or r.waiting_since is None:
            return False
        elapsed = mode.change(max(r.waiting_since - r.start, 0), r.loaded)
        boundary = r.waiting_since + 1 if elapsed is None else r.start + elapsed
        if boundary > tick:
            return False
        rise = self._next(mode.rise)
        second_half = self.mode == 3 and not self.out(boundary)
        self._load(boundary)
        if second_half:
            r.start = boundary - (r.loaded + 1) // 2
        r.seen = boundary
        return rise is not None and rise <= boundary

    # -- counts in ---------------------------------------------------------------------------------------------------

    def write_control(self, control: int, tick: int) -> None:
        """Program the counter: it stops, and OUT takes the mode's level."""
        count = self.count(tick)
        gate = self.r.gate
        self.r = CounterRegisters(control=control & 0x3F, gate=gate, idle_count=count, seen=tick)
        self.r.idle_out = self.mode != 0

    def write(self, value: int, tick: int) -> None:
        """Write a byte of the count."""
        r, access = self.r, self.r.control >> 4
        if access == ACCESS_LOW:
            self._count_written(value, tick)
        elif access == ACCESS_HIGH:
            self._count_written(value << 8, tick)
        elif r.low_byte is None:
            r.low_byte = value
            if self.mode == 0:  # the first byte stops a mode 0 counter and clears OUT
                r.idle_count, r.start, r.idle_out = self.count(tick), None, False
        else:
            low, r.low_byte = r.low_byte, None
            self._count_written(value << 8 | low, tick)

    def _count_written(self, count: int, tick: int) -> None:
        r, mode = self.r, MODES[self.mode]
        r.register, r.has_register, r.null = count, True, True
        if r.start is not None and tick < r.start:
            self._load(r.start)  # the load that is due with the next clock takes what the register holds then
            return
        if mode.triggered or (mode.periodic and r.start is not None):
            r.waiting_since = tick
            return
        if self.mode == 0:
            r.idle_out = False
        self._load(tick + 1)
        r.held = None if r.gate else 0

    def _load(self, tick: int) -> None:
        r = self.r
        r.start, r.waiting_since = tick, None
        digits = r.register
        if r.control & 1:
            digits = sum((r.register >> 4 * place & 15) * 10**place for place in range(4)) % 10_000
        r.loaded = digits or self._modulus

    def set_gate(self, level: bool, tick: int) -> None:
        """Set GATE: modes 0 and 4 pause, 2 and 3 stop and reload, 1 and 5 are triggered by the rising edge."""
        r, mode = self.r, MODES[self.mode]
        if level == r.gate:
            return
        r.gate = level
        if mode.triggered or mode.periodic:
            r.idle_out = mode.periodic or self.out(tick)
            if level and r.has_register:
                self._load(tick + 1)
                r.held = None
            elif mode.periodic and r.start is not None:
                r.held = max(self._elapsed(tick), 0)
        elif r.start is not None:
            if level and r.held is not None:
                r.start, r.held = tick - r.held, None
            else:
                r.held = max(self._elapsed(tick), 0)

    # -- counts out --------------------------------------------------------------------------------------------------

    def latch_count(self, tick: int) -> None:
        """Counter latch command; ignored while an earlier one has not been read."""
        if not self.r.latched:
            self.r.latched = self._selected(self.count(tick))

    def latch_status(self, tick: int) -> None:
        """Latch the status byte; ignored while an earlier one has not been read."""
        if self.r.status is None:
            self.r.status = self.out(tick) << 7 | self.r.null << 6 | self.r.control

    def _selected(self, count: int) -> bytes:
        access = self.r.control >> 4
        both = count.to_bytes(2, "little")
        return both if access == ACCESS_BOTH else both[1:] if access == ACCESS_HIGH else both[:1]

    def read(self, tick: int) -> int:
        """Read a byte: latched status first, then a latched count, then the running count."""
        r = self.r
        if r.status is not None:
            status, r.status = r.status, None
            return status
        if r.latched:
            value, r.latched = r.latched[0], r.latched[1:]
            return value
        selected = self._selected(self.count(tick))
        if len(selected) == 1:
            return selected[0]
        r.read_high_next = not r.read_high_next
        return selected[0 if r.read_high_next else 1]
