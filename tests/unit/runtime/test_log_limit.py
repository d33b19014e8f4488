"""The limit of equal lines in a log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from iovirt_dist.runtime.log_limit import BURST, INTERVAL_S, MAX_TEXTS, UNLIMITED, LogLimit


class Log:
    """A logger with a limit, on a clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.limit = LogLimit(lambda: self.now)

    def say(self, text: str, *args: object, level: int = logging.INFO, extra: Mapping[str, object] = {}) -> list[str]:
        """Log a line; returns what is written."""
        record = logging.getLogger("x").makeRecord("x", level, "x.py", 1, text, args, None, None, extra)
        return [record.getMessage()] if self.limit.filter(record) else []


def test_equal_lines_are_left_out_once_there_are_many() -> None:
    """The last one says so; others are written."""
    log = Log()
    written = [line for _ in range(BURST + 5) for line in log.say("%s gone", "vm")]

    assert written == ["vm gone"] * (BURST - 1) + [f"vm gone (said {BURST} times: not for the next 5 s)"]
    assert log.say("%s gone", "other") == ["other gone"]


def test_line_is_written_again_after_the_interval() -> None:
    """As often as at first."""
    log = Log()
    for _ in range(BURST + 1):
        log.say("gone")
    log.now += INTERVAL_S - 0.1
    before = log.say("gone")
    log.now += 0.1
    after = [line for _ in range(BURST + 5) for line in log.say("gone")]

    assert before == []
    assert len(after) == BURST


def test_lines_that_come_rarely_are_never_left_out() -> None:
    """However often in all."""
    log = Log()
    for _ in range(3 * BURST):
        assert log.say("100%") == ["100%"]
        log.now += INTERVAL_S / BURST * 2


def test_warnings_are_equal_whatever_their_numbers() -> None:
    """A peer that is refused with ever other numbers fills no log; guests that are told apart by theirs are told."""
    log = Log()
    warned = [line for n in range(BURST + 5) for line in log.say(f"flags 0x{n:x} of {n}", level=logging.WARNING)]
    told = [line for number in range(BURST + 5) for line in log.say("guest-%d connected", number)]

    assert len(warned) == BURST
    assert len(told) == BURST + 5


def test_what_a_script_says_is_never_left_out() -> None:
    """Nor changed."""
    log = Log()
    assert [log.say("ok", extra=UNLIMITED) for _ in range(2 * BURST)] == [["ok"]] * (2 * BURST)


def test_memory_is_bounded() -> None:
    """What was not said for longest is counted anew."""
    log = Log()
    for _ in range(BURST + 1):
        log.say("often")
        log.say("once")
    for number in range(MAX_TEXTS - 1):
        log.say("line %d", number)
        quiet = log.say("often")

    assert quiet == []
    assert log.say("once") == ["once"]
