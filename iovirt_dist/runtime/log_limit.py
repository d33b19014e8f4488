"""Keeps a process's log bounded: what is said again and again is left out for a while.

A peer that connects, sends garbage and connects again makes a few lines each time, as often as it likes; counters tell
how often, the log need not. Modelled on the kernel's rate limit of its own log (Linux, lib/ratelimit.c).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

INTERVAL_S: Final = 5.0
BURST: Final = 50
"""Equal lines of one interval."""
UNLIMITED: Final[Mapping[str, object]] = {"unlimited": True}
"""``extra`` of a line that is always written: what a script says is its output."""
MAX_TEXTS: Final = 256
"""Different lines that are counted; of more, those that were not said for longest are forgotten."""

_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")


class LogLimit(logging.Filter):
    """A filter of a handler.

    Lines are equal word for word; warnings also if only numbers differ, as those may be the peer's.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written; the last one before it is quiet says so."""
        if getattr(record, "unlimited", False):
            return True
        text, now = record.getMessage(), self._clock()
        key = _NUMBER.sub("#", text) if record.levelno >= logging.WARNING else text
        since, count = self._said.pop(key, (now, 0))
        if now - since >= INTERVAL_S:
            since, count = now, 0
        if len(self._said) >= MAX_TEXTS:
            del self._said[next(iter(self._said))]
        self._said[key] = since, count + 1
        if count + 1 == BURST:
            quiet_s = since + INTERVAL_S - now
            record.msg, record.args = f"{text} (said {BURST} times: not for the next {quiet_s:.0f} s)", ()
        return count < BURST
