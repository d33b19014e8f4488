"""Restart policy and back-off."""

from __future__ import annotations

import pytest

from iovirt_dist.runtime.restart import Backoff, describe_exit
from iovirt_dist.topology import Restart

SHORT_NS = 1_000_000
LONG_NS = 60_000_000_000


def test_backoff_doubles_up_to_five_seconds() -> None:
    """A crash loop does not eat the processor."""
    backoff = Backoff("always")
    delays_ms = [(backoff.ended(1, SHORT_NS) or 0) // 1_000_000 for _ in range(8)]
    assert delays_ms == [100, 200, 400, 800, 1600, 3200, 5000, 5000]
    assert backoff.restarts == 8


def test_backoff_starts_anew_after_a_healthy_run() -> None:
    """A crash after a long run is restarted at once, and the next one follows the ladder again."""
    backoff = Backoff("always")
    delays_ms = [(backoff.ended(-9, ran_ns) or 0) // 1_000_000 for ran_ns in (SHORT_NS, SHORT_NS, LONG_NS, SHORT_NS)]
    assert delays_ms == [100, 200, 100, 200]


def test_backoff_is_short_for_a_process_that_served() -> None:
    """Others wait for it; one that does not get so far has the ladder to itself."""
    backoff = Backoff("always")
    delays_ms = [(backoff.ended(-9, SHORT_NS, served=True) or 0) // 1_000_000 for _ in range(5)]
    delays_ms += [(backoff.ended(1, SHORT_NS) or 0) // 1_000_000 for _ in range(2)]
    assert delays_ms == [100, 200, 200, 200, 200, 400, 800]


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        ("always", 0, True),
        ("always", -9, True),
        ("always", 2, False),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("on-failure", -11, True),
        ("on-failure", 2, False),
        ("never", 1, False),
    ],
)
def test_policy_decides_on_the_way_it_ended(restart: Restart, code: int, again: bool) -> None:
    """A wrong configuration (exit status 2) is never started again."""
    assert (Backoff(restart).ended(code, SHORT_NS) is not None) == again


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-63, "killed by signal 63")],
)
def test_describe_exit_says_status_or_signal(code: int, text: str) -> None:
    """Signals have names where Python knows one."""
    assert describe_exit(code) == text
