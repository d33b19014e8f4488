"""When to start a process again that has ended: policy and back-off, as a pure state machine."""

from __future__ import annotations

import signal
from typing import Final

from iovirt_dist.topology import Restart

FIRST_DELAY_NS: Final = 100_000_000
MAX_DELAY_NS: Final = 5_000_000_000
SETTLED_NS: Final = 10_000_000_000
"""A process that ran this long is taken as healthy: its next crash starts the back-off anew."""

SERVED_DELAY_NS: Final = 200_000_000
"""Longest delay for a process that came so far as to serve: others wait for it, and what it met may not come again."""

EXIT_USAGE: Final = 2
"""Exit status of a wrong configuration: starting again cannot help."""


class Backoff:
    """Decides for one process.

    Args:
        restart: The policy.

    Attributes:
        restarts: How often it was started again.
    """

    def __init__(self, restart: Restart) -> None:
        self._restart = restart
        self._delay_ns = FIRST_DELAY_NS
        self.restarts = 0

    def ended(self, code: int, ran_ns: int, *, served: bool = False) -> int | None:
        """Take note of an end.

        Args:
            code: Exit status 0..255, or the negative signal number.
            ran_ns: How long it ran.
            served: Whether it came so far as to serve.

        Returns:
            Nanoseconds to wait before it is started again; None to leave it.
        """
        if self._restart == "never" or code == EXIT_USAGE or (code == 0 and self._restart == "on-failure"):
            return None
        delay_ns = FIRST_DELAY_NS if ran_ns >= SETTLED_NS else self._delay_ns
        if served:
            delay_ns = min(delay_ns, SERVED_DELAY_NS)
        self._delay_ns = min(2 * delay_ns, MAX_DELAY_NS)
        self.restarts += 1
        return delay_ns


def describe_exit(code: int) -> str:
    """Say in words how a process ended: ``exit status 1``, ``killed by SIGKILL``."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
