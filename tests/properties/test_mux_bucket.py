"""Token buckets under any load: rate, burst, no drift."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iovirt_dist.mux.bucket import REST_NS, SECOND_NS, TokenBucket

RATES = st.integers(1, 10**7)
BURSTS_NS = st.integers(1_000_000, SECOND_NS)


@given(
    rate=st.integers(20, 20_000),
    burst_ns=st.integers(1_000_000, 40_000_000),
    late_ns=st.lists(st.integers(0, 900_000), min_size=1, max_size=20),
)
def test_rate_holds_within_five_percent_in_every_second_after_the_first(
    rate: int, burst_ns: int, late_ns: list[int]
) -> None:
    """For one who always has more and is woken less than the burst too late; each window of a second is looked at."""
    bucket = TokenBucket(rate, burst_ns, 0)
    passed_ns: list[int] = []
    now_ns = turn = 0
    while now_ns < 3 * SECOND_NS:
        count = bucket.spendable(now_ns)
        bucket.pay(count)
        passed_ns += [now_ns] * count
        now_ns = bucket.ready_ns(now_ns) + min(late_ns[turn % len(late_ns)], burst_ns - burst_ns // 2)
        turn += 1

    slack = max(rate * 0.05, 2 + rate * (REST_NS + 900_000) / SECOND_NS)
    for begin_ns in range(SECOND_NS, 2 * SECOND_NS, 50_000_000):
        count = bisect_left(passed_ns, begin_ns + SECOND_NS) - bisect_left(passed_ns, begin_ns)
        assert abs(count - rate) <= slack


@given(
    rate=RATES,
    burst_ns=BURSTS_NS,
    steps=st.lists(st.tuples(st.integers(0, 2 * SECOND_NS), st.integers(1, 5000)), max_size=50),
)
def test_no_span_has_more_than_rate_burst_and_one_request(
    rate: int, burst_ns: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever is asked for, and when: every span between two requests."""
    bucket = TokenBucket(rate, burst_ns, 0)
    now_ns, passed = 0, [(0, 0)]
    for wait_ns, extra in steps:
        now_ns += wait_ns
        size = extra + rate * burst_ns // SECOND_NS // 8  # so that a full bucket takes few requests
        while bucket.spendable(now_ns) > 0:
            bucket.pay(size)
            passed.append((now_ns, passed[-1][1] + size))

    largest = max((after - before for (_, before), (_, after) in pairwise(passed)), default=0)
    for at, (begin_ns, before) in enumerate(passed):
        for end_ns, after in passed[at:]:
            allowed = rate * (end_ns - begin_ns) + rate * burst_ns
            assert (after - before - largest) * SECOND_NS <= allowed


@given(rate=RATES, burst_ns=BURSTS_NS, steps_ns=st.lists(st.integers(1, SECOND_NS // 2), min_size=1, max_size=30))
def test_nothing_is_lost_or_made_however_often_one_looks(rate: int, burst_ns: int, steps_ns: list[int]) -> None:
    """Hours in odd steps with debt at all times: the level is the product, to the billionth of a token."""
    debt = rate * 36_000
    once, often = TokenBucket(rate, burst_ns, 0), TokenBucket(rate, burst_ns, 0)
    once.pay(debt)
    often.pay(debt)
    now_ns = 0
    for step_ns in steps_ns * 20:
        now_ns += step_ns
        often.spendable(now_ns)

    assert often.spendable(now_ns) == once.spendable(now_ns)
    assert often.ready_ns(now_ns) == once.ready_ns(now_ns)


@given(rate=RATES, burst_ns=BURSTS_NS, debt=st.integers(0, 10**9), now_ns=st.integers(0, 10 * SECOND_NS))
def test_ready_is_when_it_says(rate: int, burst_ns: int, debt: int, now_ns: int) -> None:
    """Something can be paid then, and waiting is never longer than needed by more than the rest."""
    bucket = TokenBucket(rate, burst_ns, 0)
    bucket.pay(debt)

    ready_ns = bucket.ready_ns(now_ns)
    exact = TokenBucket(rate, burst_ns, 0)
    exact.pay(debt)

    assert ready_ns >= now_ns
    assert bucket.spendable(ready_ns) > 0
    assert ready_ns == now_ns or exact.spendable(max(now_ns, ready_ns - REST_NS - 1)) <= 1 + rate * REST_NS // SECOND_NS


class BucketMachine(RuleBasedStateMachine):
    """A bucket beside a model in exact fractions, through waits, payments and changes in any order."""

    @initialize(rate=RATES, burst_ns=BURSTS_NS)
    def begin(self, rate: int, burst_ns: int) -> None:
        """Both are full."""
        self.now_ns = 0
        self.rate, self.burst_ns = rate, burst_ns
        self.bucket = TokenBucket(rate, burst_ns, 0)
        self.level = self.full

    @property
    def full(self) -> Fraction:
        """What can be saved up, tokens."""
        return Fraction(self.rate * self.burst_ns, SECOND_NS)

    @rule(wait_ns=st.integers(0, 2 * SECOND_NS))
    def wait(self, wait_ns: int) -> None:
        """Tokens accrue up to the burst."""
        self.now_ns += wait_ns
        self.level = min(self.full, self.level + Fraction(self.rate * wait_ns, SECOND_NS))

    @rule(tokens=st.integers(0, 10**6))
    def pay(self, tokens: int) -> None:
        """What is not there becomes debt."""
        self.bucket.spendable(self.now_ns)
        self.bucket.pay(tokens)
        self.level -= tokens

    @rule()
    def go_when_it_is_ready(self) -> None:
        """Somebody can then, and no earlier look would have said so for nothing."""
        ready_ns = self.bucket.ready_ns(self.now_ns)
        assert ready_ns >= self.now_ns
        self.wait(ready_ns - self.now_ns)
        assert self.level > 0

    @rule(rate=RATES, burst_ns=BURSTS_NS)
    def change(self, rate: int, burst_ns: int) -> None:
        """Debt stays, savings as far as the new burst goes."""
        self.bucket.change(rate, burst_ns, self.now_ns)
        self.rate, self.burst_ns = rate, burst_ns
        self.level = min(self.level, self.full)

    @invariant()
    def levels_are_equal(self) -> None:
        """To the token, rounded up: whoever is not in debt may go."""
        assert self.bucket.spendable(self.now_ns) == ceil(self.level)


TestBucketMachine = BucketMachine.TestCase
TestBucketMachine.settings = settings(max_examples=100, stateful_step_count=40)
