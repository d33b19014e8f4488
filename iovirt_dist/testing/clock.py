"""A clock that moves when a test says so."""

from __future__ import annotations


class VirtualClock:
    """Virtual monotonic time.

    Args:
        now_ns: Where it starts; above 0, because a 0 means "never" to some who read clocks.

    Attributes:
        now_ns: Time now; change it with `advance` and `advance_to` only.
    """

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """Return the time now, so that the clock itself can stand for `time.monotonic_ns`."""
        return self.now_ns

    def advance(self, by_ns: int) -> int:
        """Let time pass; returns the time then.

        Raises:
            ValueError: `by_ns` is negative.
        """
        if by_ns < 0:
            raise ValueError(f"time does not go back by {-by_ns} ns")
        self.now_ns += by_ns
        return self.now_ns

    def advance_to(self, at_ns: int) -> int:
        """Let time pass until `at_ns`, not at all if that is over; returns the time then."""
        self.now_ns = max(self.now_ns, at_ns)
        return self.now_ns
