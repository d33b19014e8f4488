"""Looks for the next message for a while before the thread sleeps, where that has paid off.

To sleep and be woken costs a trap more than all our work on it: the kernel's scheduler twice, and caches that others
have filled meanwhile. So who expects an answer soon polls first, as KVM does when a virtual CPU halts (Linux,
Documentation/virt/kvm/halt-polling.rst), by its rules: the window grows while sleeps end within what polling could
have covered, and is 0 after a longer one, so an idle process does not poll at all. Between two looks the CPU is
offered to others; when somebody takes it, polling rests, as it would only be in the way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Protocol

MOST_NS: Final = 200_000
"""Longest window; KVM's default (halt_poll_ns)."""
FIRST_NS: Final = 50_000
"""Window after the first sleep that was short enough; it doubles from there."""
STREAK_NS: Final = 5_000_000
"""The event loop gets its turn at least this often, for its timers."""
TAKEN_NS: Final = 50_000
"""Somebody has run on our CPU if it was away for this long."""
LEAST_REST_NS: Final = 10_000_000
"""How long polling rests then: twice as long each time, half as long with each poll that pays off."""
MOST_REST_NS: Final = 2_000_000_000


class Pollable(Protocol):
    """What may have messages: a `Pump`."""

    def drain_pending(self) -> bool:
        """Hand over what is there; False if there was nothing."""
        ...


class HaltPoll:
    """Polls several pumps of one thread. One that is woken by the loop tells it before and after it drains.

    Args:
        clock: Monotonic time in ns.
        offer: Lets others run if somebody wants to.
    """

    def __init__(
        self, clock: Callable[[], int] = time.monotonic_ns, offer: Callable[[], object] = os.sched_yield
    ) -> None:
        self.window_ns = 0
        """How long the next poll lasts without a message."""
        self._clock = clock
        self._offer = offer
        self._pumps: list[Pollable] = []
        self._slept_from_ns = clock()
        self._rest_ns = LEAST_REST_NS
        self._rests_until_ns = 0

    def join(self, pump: Pollable) -> None:
        """Poll this pump, too."""
        self._pumps.append(pump)

    def leave(self, pump: Pollable) -> None:
        """Poll it no more."""
        self._pumps = [known for known in self._pumps if known is not pump]

    def woken(self) -> None:
        """The thread slept, and a message woke it: adapt the window to how long that took."""
        now_ns = self._clock()
        if now_ns - self._slept_from_ns > MOST_NS or now_ns < self._rests_until_ns:
            self.window_ns = 0
        else:
            self.window_ns = min(max(2 * self.window_ns, FIRST_NS), MOST_NS)

    def poll(self) -> None:
        """Hand messages over as they come, until none has come for a window; then the thread may sleep."""
        clock, window_ns = self._clock, self.window_ns
        now_ns = clock()
        end_ns, streak_end_ns = now_ns + window_ns, now_ns + STREAK_NS
        while now_ns < end_ns and now_ns < streak_end_ns and self._pumps:
            drained = False
            for pump in self._pumps:
                drained = pump.drain_pending() or drained
            if drained:
                now_ns = clock()
                end_ns = now_ns + window_ns
                self._rest_ns = max(self._rest_ns // 2, LEAST_REST_NS)
                continue
            before_ns = clock()
            self._offer()
            now_ns = clock()
            if now_ns - before_ns > TAKEN_NS:
                self.window_ns = 0
                self._rests_until_ns = now_ns + self._rest_ns
                self._rest_ns = min(2 * self._rest_ns, MOST_REST_NS)
                break
        self._slept_from_ns = now_ns
