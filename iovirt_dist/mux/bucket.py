"""A token bucket without rounding: tokens accrue with every nanosecond, counted in billionths of a token.

Whoever is not in debt may go, and pays afterwards, so that a request larger than the bucket is possible; it only makes
the next one wait. In any span of T seconds at most rate x T + burst + one request pass, and whoever always has
something to send gets exactly the rate, however late it is woken, as long as that is not later than the burst.
"""

from __future__ import annotations

from typing import Final

SECOND_NS: Final = 1_000_000_000

REST_NS: Final = 500_000
"""Whoever was in debt waits until so much time's tokens are there, or half of the burst, so that timers are few."""


class TokenBucket:
    """A limit of operations or bytes a second.

    Args:
        rate: Tokens a second, 1 or more.
        burst_ns: For so long unused tokens are saved up, 1 or more.
        now_ns: Monotonic time; the bucket is full then.
    """

    __slots__ = ("_at_ns", "_full", "_level", "_rate")

    def __init__(self, rate: int, burst_ns: int, now_ns: int) -> None:
        self._rate = rate
        self._full = rate * burst_ns
        self._level = self._full
        self._at_ns = now_ns

    def spendable(self, now_ns: int) -> int:
        """Let tokens accrue; returns how many single ones could be paid before there is debt, 0 or less for none."""
        if now_ns > self._at_ns:
            self._level = min(self._full, self._level + (now_ns - self._at_ns) * self._rate)
            self._at_ns = now_ns
        return -(-self._level // SECOND_NS)

    def pay(self, tokens: int) -> None:
        """Take tokens, more than there are if need be."""
        self._level -= tokens * SECOND_NS

    def ready_ns(self, now_ns: int) -> int:
        """Return the time, `now_ns` or later, at which something can be paid and waiting was worth it."""
        if self.spendable(now_ns) > 0:
            return now_ns
        wanted = max(1, min(self._full // 2, self._rate * REST_NS))
        return now_ns + -(-(wanted - self._level) // self._rate)

    def change(self, rate: int, burst_ns: int, now_ns: int) -> None:
        """Set another rate and burst from now on; debt stays, savings as far as the new burst goes."""
        self.spendable(now_ns)
        self._rate = rate
        self._full = rate * burst_ns
        self._level = min(self._level, self._full)
