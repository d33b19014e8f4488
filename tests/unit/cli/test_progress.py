"""How far a copy is."""

from __future__ import annotations

import sys
import time

import pytest

from iovirt_dist.cli import progress

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as the module sees it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_copy_that_is_soon_over_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Two seconds are bearable."""
    with progress.copying(2 * MIB, "export d") as advance:
        clock[0] += 1.9
        advance(MIB)
        advance(MIB)

    assert capsys.readouterr().err == ""


def test_long_copy_into_a_log_has_ever_fewer_lines(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """At 2, 4 and 8 seconds."""
    with progress.copying(100 * MIB, "export d") as advance:
        for _ in range(10):
            clock[0] += 1
            advance(10 * MIB)

    assert capsys.readouterr().err.splitlines() == [
        "iovirt: export d: 20 of 100 MiB (20 %)",
        "iovirt: export d: 40 of 100 MiB (40 %)",
        "iovirt: export d: 80 of 100 MiB (80 %)",
    ]


def test_long_copy_on_a_terminal_has_one_line_that_goes(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a second at most."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    with progress.copying(100 * MIB, "export d") as advance:
        for _ in range(12):
            clock[0] += 0.25
            advance(8 * MIB)

    shown = capsys.readouterr().err
    assert "\n" not in shown
    assert shown.count("export d: ") == 3
    assert shown.endswith("\r\x1b[K")
