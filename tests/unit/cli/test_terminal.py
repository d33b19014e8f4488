"""Console sessions on a real pseudo-terminal, without a topology."""

from __future__ import annotations

import contextlib
import os
import re
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.cli.terminal import ConsolePlan, ConsoleSession, PtyInput, attach, raw_terminal
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import RunDir


class Board:
    """A guest's terminal as the console controller keeps it: a log file and a PTY.

    Args:
        run_dir: Where.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.output = bytearray()
        self.master = -1
        self.slave = -1

    def plug(self) -> None:
        """Make the PTY, as at a controller's start."""
        self.unplug()
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        link = self.run_dir.console_tty("alice")
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self.slave))

    def unplug(self) -> None:
        """End the PTY, as when a controller is killed."""
        if self.master >= 0:
            os.close(self.master)
            os.close(self.slave)
            self.master = -1

    def show(self, data: bytes) -> None:
        """Let the guest print."""
        with self.run_dir.console_log("alice").open("ab") as file:
            file.write(data)

    def session(self, plan: ConsolePlan, reasons: list[str | None] | None = None) -> ConsoleSession:
        """A session whose checks give the reasons one by one, and then for ever that the guest is gone."""
        left = [] if reasons is None else reasons
        return ConsoleSession(
            self.run_dir, "alice", plan, self.output.extend, lambda: left.pop(0) if left else "the guest is gone"
        )


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A plugged-in terminal."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.create()
    made = Board(run_dir)
    made.plug()
    yield made
    made.unplug()


@pytest.fixture
def keys() -> Iterator[tuple[int, int]]:
    """The user's own terminal: the far end that types, and our stdin."""
    far, near = os.openpty()
    yield far, near
    os.close(far)
    os.close(near)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A piped stdin: where to write, and our stdin; the test closes the former."""
    reader, writer = os.pipe()
    yield writer, reader
    os.close(reader)


def test_session_expects_the_end_of_a_line_before_its_carriage_return(board: Board) -> None:
    """Guests end lines with CR LF; a pattern's $ stands in front of both, and the output is passed on unchanged."""
    board.show(b"=> sleep 1\r\ndone\r\n")
    plan = ConsolePlan(expect=re.compile(r"^done$", re.MULTILINE), history_bytes=None, stdin=None)
    assert board.session(plan).run() == 0
    assert board.output == b"=> sleep 1\r\ndone\r\n"


def test_expect_in_the_history_ends_at_once(board: Board) -> None:
    """The pattern may span lines of what was shown before."""
    board.show(b"boot\r\n=> ")
    plan = ConsolePlan(expect=re.compile(r"boot\s+=> $"), history_bytes=None, stdin=None)
    assert board.session(plan).run() == 0
    assert board.output == b"boot\r\n=> "


def test_expect_without_history_ignores_what_was_before(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    """An old prompt is no answer to a new command."""
    board.show(b"=> ")
    plan = ConsolePlan(expect=re.compile("=> "), history_bytes=0, stdin=None, timeout_s=0.05)
    assert board.session(plan, [None] * 9).run() == 1
    assert capsys.readouterr().err == "iovirt: error: '=> ' did not appear within 0.05 s\n"


def test_timeout_without_expect_is_done(board: Board) -> None:
    """Watching for a while is what was asked for."""
    plan = ConsolePlan(stdin=None, timeout_s=0.02)
    assert board.session(plan, [None] * 9).run() == 0


def test_guest_gone_shows_the_rest_first(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    """The last words are what one looks for after a crash."""
    board.show(b"panic")
    plan = ConsolePlan(expect=re.compile("login:"), history_bytes=None, stdin=None)
    assert board.session(plan).run() == 1
    assert board.output == b"panic"
    assert capsys.readouterr().err == "iovirt: the guest is gone\n"


def test_piped_input_reaches_the_guest_and_its_end_waits_for_quiet(board: Board, pipe: tuple[int, int]) -> None:
    """``echo help | iovirt console alice`` sends all and leaves after the answer."""
    os.write(pipe[0], b"help\n\x1d")
    os.close(pipe[0])
    assert board.session(ConsolePlan(stdin=pipe[1], silent_s=0.05), [None] * 99).run() == 0
    assert os.read(board.master, 99) == b"help\n\x1d"


def test_end_of_input_waits_for_the_first_output(board: Board, pipe: tuple[int, int]) -> None:
    """A guest that is still starting is not quiet: only what it prints starts the quiet period."""
    os.close(pipe[0])
    board.run_dir.console_log("alice").touch()

    def boot() -> str | None:
        board.show(b"booted")
        return None

    plan = ConsolePlan(stdin=pipe[1], quiet_s=0.01)
    assert ConsoleSession(board.run_dir, "alice", plan, board.output.extend, boot).run() == 0
    assert board.output == b"booted"


def test_end_of_input_ends_a_session_with_a_silent_guest(board: Board, pipe: tuple[int, int]) -> None:
    """A guest that never prints does not hold a script for ever."""
    os.close(pipe[0])
    assert board.session(ConsolePlan(stdin=pipe[1], quiet_s=9, silent_s=0.02), [None] * 9).run() == 0


def test_end_of_input_without_a_quiet_period_goes_on(
    board: Board, pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """``iovirt run < /dev/null`` ends with its guest."""
    os.close(pipe[0])
    board.show(b"working")
    plan = ConsolePlan(stdin=pipe[1], history_bytes=None, quiet_s=None, silent_s=0.0)
    assert board.session(plan, [None]).run() == 0
    assert capsys.readouterr().err == "iovirt: the guest is gone\n"


@pytest.mark.parametrize(("typed", "sent"), [(b"", b"\x04"), (b"a\n", b"a\n\x04"), (b"a", b"a\x04\x04")])
def test_end_of_input_is_told_to_a_program(board: Board, pipe: tuple[int, int], typed: bytes, sent: bytes) -> None:
    """A line without its end takes two: the first only completes it."""
    os.write(pipe[0], typed)
    os.close(pipe[0])
    plan = ConsolePlan(stdin=pipe[1], silent_s=0.05, end_of_input=b"\x04")
    assert board.session(plan, [None] * 99).run() == 0
    assert os.read(board.master, 99) == sent


def test_escape_on_a_terminal_leaves(board: Board, keys: tuple[int, int]) -> None:
    """Ctrl-] is for us, not for the guest."""
    with raw_terminal(keys[1]):
        os.write(keys[0], b"\x1d")
        assert board.session(ConsolePlan(stdin=keys[1]), [None] * 99).run() == 0


def test_raw_terminal_restores_after_an_error(keys: tuple[int, int]) -> None:
    """An exception must not leave the user's shell without echo."""
    before = termios.tcgetattr(keys[1])
    with contextlib.suppress(RuntimeError), raw_terminal(keys[1]):
        raise RuntimeError
    assert termios.tcgetattr(keys[1]) == before


def test_raw_terminal_takes_every_key_and_keeps_output_processing(keys: tuple[int, int]) -> None:
    """Ctrl-C is the guest's, and a bare line feed makes no stairs."""
    with raw_terminal(keys[1]):
        modes = termios.tcgetattr(keys[1])
    assert not modes[3] & (termios.ECHO | termios.ISIG | termios.ICANON)
    assert modes[1] & termios.OPOST


def test_session_survives_a_restart_of_the_controller(board: Board, pipe: tuple[int, int]) -> None:
    """Input goes to the new PTY, output comes from the replaced log."""
    plan = ConsolePlan(expect=re.compile("again"), stdin=pipe[1])
    session = board.session(plan, [None] * 999)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(session.run()))
    thread.start()
    os.write(pipe[0], b"one")
    first = os.read(board.master, 3)
    board.plug()
    os.write(pipe[0], b"two")
    second = os.read(board.master, 3)
    board.run_dir.console_log("alice").write_bytes(b"again")
    thread.join(10)
    os.close(pipe[0])
    assert (first, second, codes) == (b"one", b"two", [0])


def test_pty_input_without_pty_keeps_what_it_has(board: Board) -> None:
    """Keys typed while the controller is away are sent when it is back."""
    board.unplug()
    board.run_dir.console_tty("alice").unlink()
    sending = PtyInput(board.run_dir.console_tty("alice"))
    sending.put(b"x" * 70_000)
    sending.flush()
    assert sending.is_full
    assert not sending.is_empty


def test_attach_to_a_topology_that_is_down_raises(board: Board) -> None:
    """The error says how to start it."""
    with pytest.raises(LocalError, match="the topology is not up; start it with 'iovirt up -d'"):
        attach(board.run_dir, "alice", ConsolePlan(stdin=None))
