"""Token buckets."""

from __future__ import annotations

from iovirt_dist.mux.bucket import REST_NS, SECOND_NS, TokenBucket

MS = 1_000_000


def test_bucket_begins_full_and_takes_debt() -> None:
    """Twenty milliseconds of a thousand a second are twenty; what is not in debt may go."""
    bucket = TokenBucket(1000, 20 * MS, 0)

    full = bucket.spendable(0)
    bucket.pay(25)

    assert full == 20
    assert bucket.spendable(0) == -5
    assert bucket.spendable(5 * MS) == 0
    assert bucket.spendable(5 * MS + 1) == 1


def test_bucket_saves_no_more_than_its_burst() -> None:
    """An hour of silence is worth as much as the burst."""
    bucket = TokenBucket(1000, 20 * MS, 0)
    bucket.pay(20)

    assert bucket.spendable(3600 * SECOND_NS) == 20


def test_bucket_in_debt_is_ready_when_a_little_is_there() -> None:
    """Timers are few: half a millisecond's tokens, or half of a small burst."""
    fast, slow = TokenBucket(1_000_000, 20 * MS, 0), TokenBucket(1, MS, 0)
    fast.pay(20_000)
    slow.pay(1)

    assert fast.ready_ns(0) == REST_NS
    assert slow.ready_ns(0) == SECOND_NS - MS + MS // 2
    assert TokenBucket(1, MS, 7).ready_ns(9) == 9


def test_bucket_counts_what_accrues_within_a_nanosecond() -> None:
    """Three a second asked for at odd times for a day: not one is lost."""
    bucket = TokenBucket(3, SECOND_NS, 0)
    bucket.pay(3)
    now_ns = passed = 0
    for step in range(200_000):
        now_ns += 431_999_983 + step % 31
        if bucket.spendable(now_ns) > 0:
            bucket.pay(1)
            passed += 1

    assert now_ns > 86_000 * SECOND_NS
    assert passed == 200_000  # one each step: 0.432 s are worth 1.3, and the burst is never the limit


def test_bucket_changes_from_now_on() -> None:
    """What accrued before counts at the old rate; savings are cut to the new burst, debt stays."""
    bucket = TokenBucket(1000, 20 * MS, 0)
    bucket.pay(30)

    bucket.change(100, 20 * MS, 5 * MS)
    indebted = bucket.spendable(5 * MS)
    later = bucket.spendable(105 * MS)

    assert (indebted, later) == (-5, 2)
    assert TokenBucket(1000, 20 * MS, 0).spendable(0) == 20


def test_bucket_does_not_mind_time_that_stands_still() -> None:
    """Or an earlier time: nothing accrues twice."""
    bucket = TokenBucket(1000, 20 * MS, 10 * MS)
    bucket.pay(20)

    assert bucket.spendable(11 * MS) == 1
    assert bucket.spendable(10 * MS) == 1
    assert bucket.spendable(11 * MS) == 1
