"""Reading a terminal's log until something appears."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.testing.console import ConsoleHandle


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An empty run directory."""
    made = RunDir(tmp_path)
    made.create()
    return made


def _console(run_dir: RunDir) -> ConsoleHandle:
    return ConsoleHandle("alice", run_dir, lambda: "--- log of hv0 ---\nall is well")


async def test_expect_returns_the_match_and_goes_on_behind_it(run_dir: RunDir) -> None:
    """The same text is not found twice; lines end as on a terminal."""
    run_dir.console_log("alice").write_bytes(b"one 1\r\none 2\r\n")
    console = _console(run_dir)

    first = await console.expect(r"^one (\d)$")
    second = await console.expect(r"^one (\d)$")

    assert (first[1], second[1]) == ("1", "2")


async def test_expect_time_out_shows_terminal_and_logs(run_dir: RunDir) -> None:
    """A person sees at once what was there instead."""
    run_dir.console_log("alice").write_bytes(b"kernel panic\r\n")

    with pytest.raises(AssertionError) as failure:
        await _console(run_dir).expect("login:", timeout=0.01)

    text = str(failure.value)
    assert "console alice: no 'login:'" in text
    assert "kernel panic" in text
    assert "all is well" in text


async def test_expect_reads_a_log_that_was_started_anew(run_dir: RunDir) -> None:
    """A rotated log is shorter than what was read."""
    log = run_dir.console_log("alice")
    log.write_bytes(b"a long first life\n")
    console = _console(run_dir)
    await console.expect("life")

    log.write_bytes(b"second\n")

    assert (await console.expect("second"))[0] == "second"


async def test_expect_finds_a_line_whose_end_comes_in_two_parts(run_dir: RunDir) -> None:
    """The log may be read between a carriage return and its line feed, or in the middle of a character."""
    log = run_dir.console_log("alice")
    line = "echo: \u00e9\r\n".encode()
    console = _console(run_dir)

    for end in range(len(line)):
        log.write_bytes(line[:end])
        with pytest.raises(AssertionError):
            await console.expect(r"^echo: \u00e9$\n", timeout=0)
    log.write_bytes(line)

    assert (await console.expect(r"^echo: (.)$", timeout=0))[1] == "\u00e9"


def test_send_line_ends_with_enter(run_dir: RunDir) -> None:
    """Enter is a carriage return."""
    master, slave = os.openpty()
    run_dir.console_tty("alice").symlink_to(os.ttyname(slave))

    _console(run_dir).send_line("hello")

    assert os.read(master, 100) in (b"hello\r", b"hello\r\n")
    os.close(master)
    os.close(slave)


def test_send_without_a_terminal_says_so(run_dir: RunDir) -> None:
    """The console controller may be down."""
    with pytest.raises(AssertionError, match="console alice: no terminal: No such file"):
        _console(run_dir).send(b"x")
