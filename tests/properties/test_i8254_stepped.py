"""The counter's closed formulas against a model that is stepped clock by clock, straight from the data sheet.

The model knows nothing of elapsed times: at every CLK pulse it loads, decrements or toggles as the 8254 data sheet's
"Mode Definitions" say.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.hypervisor.vdev.i8254_counter import Counter8254


@dataclass
class SteppedCounter:
    """An 8254 counter in binary with one-byte counts (0 is 65536), stepped by `clock`."""

    mode: int
    gate: bool = True
    register: int | None = None
    element: int = 0
    out: bool = False
    load_next: bool = False
    counting: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        self.out = self.mode != 0

    def write(self, value: int) -> None:
        """Write a count: modes 0 and 4 restart, 2 and 3 start if idle, 1 and 5 wait for a trigger."""
        self.register = value or 0x10000
        if self.mode == 0:
            self.out = False
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.counting):
            self.load_next = True

    def set_gate(self, level: bool) -> None:
        """Gate summary table of the data sheet."""
        rising, self.gate = level and not self.gate, level
        if self.mode in (2, 3) and not level:
            self.out = True
        if rising and self.mode in (1, 2, 3, 5) and self.register is not None:
            self.load_next = True

    def clock(self) -> None:
        """One CLK pulse."""
        if self.load_next:
            self.load_next = False
            self.counting = True
            self._load()
            if self.mode == 1:
                self.out = False
            if self.mode in (2, 3, 4, 5):
                self.out = True
        elif self.counting and (self.gate or self.mode in (1, 5)):
            self._count()

    def _load(self) -> None:
        assert self.register is not None
        self.element = self.register & ~1 if self.mode == 3 else self.register
        self.odd_high = self.mode == 3 and self.register & 1 == 1 and self.out
        self.fresh = True

    def _count(self) -> None:
        if self.mode == 3:
            self._count_square()
            return
        if self.mode == 2 and self.element == 1:
            self._load()
            self.out = True
            return
        self.element = (self.element - 1) & 0xFFFF
        if self.mode == 2:
            self.out = self.element != 1
        elif self.mode in (0, 1):
            self.out = self.out or (self.element == 0 and self.fresh)
        else:
            self.out = not (self.element == 0 and self.fresh)
        self.fresh = self.fresh and self.element != 0

    def _count_square(self) -> None:
        """Even: toggle and reload when 2 expires to 0. Odd: the high half lasts one clock longer, at 0."""
        if self.element == 0 or (self.element == 2 and not self.odd_high):
            self.out = not self.out
            self._load()
            return
        self.element -= 2


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(2, 12), st.integers(0, 40)),
        st.tuples(st.just("gate"), st.integers(0, 1), st.integers(0, 40)),
    ),
    min_size=1,
    max_size=12,
)


@given(mode=st.integers(0, 5), acts=ACTS)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_counter_formulas_agree_with_a_stepped_counter(mode: int, acts: list[tuple[str, int, int]]) -> None:
    """OUT, the count, and whether OUT rose agree at every clock for any counts and gate changes."""
    counter, model = Counter8254(gate=True), SteppedCounter(mode)
    counter.write_control(0x10 | mode << 1, 0)
    tick = 0
    loaded = False
    for kind, value, clocks in acts:
        if kind == "write":
            counter.write(value, tick)
            model.write(value)
        else:
            counter.set_gate(bool(value), tick)
            model.set_gate(bool(value))
        for _ in range(clocks):
            before = counter.out(tick)
            tick += 1
            model.clock()
            loaded = loaded or model.counting
            rose = counter.settle(tick)
            assert counter.out(tick) == model.out
            assert not loaded or counter.count(tick) == model.element
            assert rose == (model.out and not before)
