"""Drives one sans-IO core on an event loop: hand in events, perform actions, keep its timer.

The only place where a core meets a clock.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from iovirt_dist.step import Core

E = TypeVar("E")
A = TypeVar("A")


class Reactor(Generic[E, A]):
    """A core on the running loop.

    Args:
        core: What decides.
        perform: What does; called for each action in order.
        timer: The event that tells the core that its deadline has come.
        after_timer: Called when that event has been handled, as after a batch of messages: it calls `settle`.
    """

    def __init__(
        self, core: Core[E, A], perform: Callable[[A], None], timer: E, after_timer: Callable[[], None]
    ) -> None:
        self._core = core
        self._step = core.handle
        self._perform = perform
        self._timer_event = timer
        self._after_timer = after_timer
        self._loop = asyncio.get_running_loop()
        self._handle_: asyncio.TimerHandle | None = None
        self._armed_ns = 0
        self._later: deque[E] = deque()
        self._performing = False

    def handle(self, event: E) -> None:
        """Let the core take an event and do what it says; `settle` must follow, once for a batch of events.

        An event that an action brings about is taken when all actions before it are performed.
        """
        if self._performing:
            self._later.append(event)
            return
        self._performing = True
        try:
            self._take(event)
            while self._later:
                self._take(self._later.popleft())
        finally:
            self._performing = False

    def _take(self, event: E) -> None:
        perform = self._perform
        for action in self._step(event, time.monotonic_ns()):
            perform(action)

    def settle(self) -> None:
        """Keep the timer, which an event may have brought forward. Nobody waits for this, so it comes last."""
        deadline = self._core.deadline_ns()
        if deadline is not None and (self._handle_ is None or deadline < self._armed_ns):
            self._arm(deadline)

    def close(self) -> None:
        """Stop the timer."""
        if self._handle_ is not None:
            self._handle_.cancel()
            self._handle_ = None

    def _arm(self, deadline_ns: int) -> None:
        if self._handle_ is not None:
            self._handle_.cancel()
        self._armed_ns = deadline_ns
        wait_s = max(deadline_ns - time.monotonic_ns(), 0) / 1e9
        self._handle_ = self._loop.call_later(wait_s, self._fire)

    def _fire(self) -> None:
        self._handle_ = None
        try:
            self.handle(self._timer_event)
        finally:  # a bug in one event must not stop the clock
            self._after_timer()
