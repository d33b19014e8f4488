"""``iovirt console``: a terminal on a guest's serial port, for people and for scripts.

Output is what the console controller appends to the guest's log; keys go to the guest's PTY. Both survive a restart of
the controller: the log is followed by name, the PTY is opened again when a write fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail, note
from iovirt_dist.cli.tail import ByteTail
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status

ESCAPE: Final = b"\x1d"
"""Ctrl-]: leaves the console, as in telnet(1) and virsh(1)."""

HISTORY_BYTES: Final = 24 * 80
"""A screenful: what is shown of the time before."""

MAX_UNSENT_BYTES: Final = 1 << 16
"""Input that the guest does not take: more is not read from stdin until it does."""

EXPECT_WINDOW_BYTES: Final = 1 << 16
"""How far back a pattern may begin."""

QUIET_S: Final = 1.0
"""After the end of a piped stdin: leave once the guest has printed, and then nothing for this long."""

SILENT_S: Final = 10.0
"""After the end of a piped stdin: leave a guest that has not printed anything at all for this long."""

_POLL_S: Final = 0.01
_CHECK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolePlan:
    """What a console session does.

    Attributes:
        expect: End with success once the output matches; None for no pattern. CR LF counts as LF.
        timeout_s: End after this long: with failure if something was expected; None for never.
        history_bytes: How much of what was shown before to show (and match); None for all.
        stdin: File descriptor of the keys; None for none.
        quiet_s: After the end of stdin without a pattern: end once nothing has come for this long since the last output
            or input; None to go on.
        silent_s: The same for a guest that has not printed anything yet: it may still be starting.
        end_of_input: What the guest shall read at the end of a piped stdin; twice if the last line has no end, as the
            first only completes that line then (POSIX, "Canonical Mode Input Processing").
    """

    expect: re.Pattern[str] | None = None
    timeout_s: float | None = None
    history_bytes: int | None = HISTORY_BYTES
    stdin: int | None = 0
    quiet_s: float | None = QUIET_S
    silent_s: float = SILENT_S
    end_of_input: bytes = b""


class PtyInput:
    """What the guest shall read, on its way to the PTY.

    Args:
        path: Link to the PTY; may be absent for now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._unsent = b""

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the user."""
        return len(self._unsent) >= MAX_UNSENT_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether everything is with the controller."""
        return not self._unsent

    def put(self, data: bytes) -> None:
        """Take input."""
        self._unsent += data

    def flush(self) -> None:
        """Send what the PTY takes now; a PTY that is gone is looked up again at the next call."""
        while self._unsent:
            try:
                if self._descriptor is None:
                    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                    self._descriptor = os.open(self._path, flags)
                sent = os.write(self._descriptor, self._unsent)
            except BlockingIOError:
                return
            except OSError as error:
                self.close()
                if error.errno not in (errno.ENOENT, errno.EIO, errno.ENXIO, errno.ENODEV):
                    raise LocalError(f"cannot write: {error.strerror}", str(self._path)) from None
                return
            self._unsent = self._unsent[sent:]

    def close(self) -> None:
        """Close the PTY."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ConsoleSession:
    """One attachment to a guest's terminal.

    Args:
        run_dir: Where the topology runs.
        guest: Whose terminal.
        plan: What to do.
        write: Takes the output, e.g. to stdout.
        check: Asked four times a second; a text ends the session with that reason.
    """

    def __init__(
        self,
        run_dir: RunDir,
        guest: str,
        plan: ConsolePlan,
        write: Callable[[bytes], None],
        check: Callable[[], str | None],
    ) -> None:
        self._plan = plan
        self._write = write
        self._check = check
        self._tail = ByteTail(run_dir.console_log(guest), plan.history_bytes)
        self._input = PtyInput(run_dir.console_tty(guest))
        self._stdin = plan.stdin
        self._window = b""
        self._at_line_start = True
        self._has_printed = False
        self._last_traffic_s = 0.0

    def run(self) -> int:
        """Carry output and input until the session ends.

        Returns:
            0: pattern found, left with Ctrl-], or done; 1: the time is over or the guest is gone.

        Raises:
            LocalError: The PTY cannot be used.
        """
        try:
            return self._run()
        finally:
            self._tail.close()
            self._input.close()

    def _run(self) -> int:
        started = last_check = self._last_traffic_s = time.monotonic()
        while True:
            now = time.monotonic()
            if data := self._tail.read():
                self._last_traffic_s = now
                self._has_printed = True
                if self._show(data):
                    return EXIT_DONE
                continue
            if self._plan.timeout_s is not None and now - started > self._plan.timeout_s:
                return self._time_over()
            if now - last_check > _CHECK_S:
                last_check = now
                if (reason := self._check()) is not None:
                    return self._ended(reason)
            if self._is_answered(now) or self._read_keys():
                return EXIT_DONE
            self._input.flush()

    def _is_answered(self, now_s: float) -> bool:
        """Whether all of a piped stdin is sent and the guest has been quiet since."""
        plan = self._plan
        at_end = self._stdin is None and plan.stdin is not None and self._input.is_empty
        if not at_end or plan.expect is not None or plan.quiet_s is None:
            return False
        return now_s - self._last_traffic_s > (plan.quiet_s if self._has_printed else plan.silent_s)

    def _show(self, data: bytes) -> bool:
        """Pass output on; whether it completes the expected pattern."""
        self._write(data)
        if self._plan.expect is None:
            return False
        self._window = (self._window + data)[-EXPECT_WINDOW_BYTES:]
        text = self._window.decode("utf-8", "replace").replace("\r\n", "\n")  # so that $ finds the end of a line
        return self._plan.expect.search(text) is not None

    def _read_keys(self) -> bool:
        """Wait a moment for keys and take them; whether the user leaves."""
        if self._stdin is None or self._input.is_full:
            time.sleep(_POLL_S)
            return False
        if not select.select((self._stdin,), (), (), _POLL_S)[0]:
            return False
        keys = os.read(self._stdin, 4096)
        self._last_traffic_s = time.monotonic()
        if not keys:
            self._stdin = None
            self._input.put(self._plan.end_of_input * (1 if self._at_line_start else 2))
            return False
        if os.isatty(self._stdin) and ESCAPE in keys:
            return True
        self._at_line_start = keys.endswith((b"\n", b"\r"))
        self._input.put(keys)
        return False

    def _time_over(self) -> int:
        if self._plan.expect is None:
            return EXIT_DONE
        fail(f"'{self._plan.expect.pattern}' did not appear within {self._plan.timeout_s:g} s")
        return EXIT_FAILED

    def _ended(self, reason: str) -> int:
        """The guest is gone: show its last words, which may hold the pattern."""
        while data := self._tail.read():
            if self._show(data):
                return EXIT_DONE
        note(reason)
        return EXIT_FAILED if self._plan.expect is not None else EXIT_DONE


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Send every key at once and unchanged, and restore the terminal on any exit that a process can see.

    Output processing stays on, so that a guest's bare line feed does not make stairs.
    """
    before = termios.tcgetattr(descriptor)
    with exit_on_signals():
        try:
            tty.setraw(descriptor, termios.TCSADRAIN)
            raw = termios.tcgetattr(descriptor)
            raw[1] |= termios.OPOST
            termios.tcsetattr(descriptor, termios.TCSADRAIN, raw)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack instead of ending the process on the spot."""
    with _handled(_exit_on_signal, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Note SIGINT, SIGTERM and SIGHUP in a list, for who looks at it again and again.

    An exception from a handler could be raised where it is lost, such as in a destructor.
    """
    noted: list[int] = []
    with _handled(lambda number, _: noted.append(number), signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield noted


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals, and as before behind the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def write_stdout(data: bytes) -> None:
    """Pass terminal output on unchanged."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def is_up(run_dir: RunDir) -> bool:
    """Whether a supervisor or any process of the topology runs."""
    return run_dir.is_locked() or any(status.alive for status in read_status(run_dir).values())


def attach(run_dir: RunDir, guest: str, plan: ConsolePlan, check: Callable[[], str | None] | None = None) -> int:
    """Attach this process's terminal to a guest's.

    Args:
        run_dir: Where the topology runs.
        guest: Whose terminal.
        plan: What to do.
        check: Other reasons to end than that the topology is down.

    Returns:
        Exit status.

    Raises:
        LocalError: The topology is not up, or the PTY cannot be used.
    """
    if not is_up(run_dir):
        raise LocalError("the topology is not up", str(run_dir.path), "start it with 'iovirt up -d'")

    def down() -> str | None:
        return None if is_up(run_dir) else "the topology went down"

    session = ConsoleSession(run_dir, guest, plan, write_stdout, check or down)
    if plan.stdin is None or not os.isatty(plan.stdin):
        return session.run()
    note(f"console of {guest}; Ctrl-] leaves")
    with raw_terminal(plan.stdin):
        code = session.run()
    print(flush=True)
    return code
