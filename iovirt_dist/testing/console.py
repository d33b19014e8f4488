"""A guest's terminal as a person at it sees it: read until something appears, type."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.testing.processes import START_S, eventually

TAIL_CHARACTERS = 2000


class ConsoleHandle:
    """One guest's terminal of a running topology.

    Args:
        guest: The guest's name.
        run_dir: Where the terminal's log and PTY are.
        explain: Says what the processes logged, for failures.
    """

    def __init__(self, guest: str, run_dir: RunDir, explain: Callable[[], str]) -> None:
        self._guest = guest
        self._run_dir = run_dir
        self._explain = explain
        self._read_bytes = 0
        self._unread = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def text(self) -> str:
        """Everything that the terminal showed."""
        path = self._run_dir.console_log(self._guest)
        return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""

    async def expect(self, pattern: str | re.Pattern[str], timeout: float = START_S) -> re.Match[str]:
        """Wait until the terminal shows something that was not expected before.

        Args:
            pattern: Regular expression, multi-line mode if given as text; what is in front of the match is skipped.
            timeout: Seconds.

        Returns:
            The match.

        Raises:
            AssertionError: It does not appear; the text shows the end of the terminal and of each process's log.
        """
        regex = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        found: list[re.Match[str]] = []

        def look() -> bool:
            self._read()
            match = regex.search(self._unread)
            if match is not None:
                found.append(match)
                self._unread = self._unread[match.end() :]
            return match is not None

        await eventually(look, timeout, lambda: f"console {self._guest}: no {regex.pattern!r}\n{self._tail()}")
        return found[0]

    def send(self, data: bytes) -> None:
        """Type bytes.

        Raises:
            AssertionError: There is no terminal: the console controller is down, or nobody has opened it yet.
        """
        try:
            terminal = os.open(self._run_dir.console_tty(self._guest), os.O_WRONLY | os.O_NOCTTY)
        except OSError as error:
            raise AssertionError(f"console {self._guest}: no terminal: {error.strerror}\n{self._tail()}") from None
        try:
            while data:
                data = data[os.write(terminal, data) :]
        finally:
            os.close(terminal)

    def send_line(self, line: str) -> None:
        """Type a line and Enter (carriage return)."""
        self.send(line.encode() + b"\r")

    def _read(self) -> None:
        """Read on in the log; from its beginning if a new one was started."""
        try:
            with self._run_dir.console_log(self._guest).open("rb") as log:
                if log.seek(0, os.SEEK_END) < self._read_bytes:
                    self._read_bytes = 0
                    self._decoder.reset()
                log.seek(self._read_bytes)
                data = log.read()
        except FileNotFoundError:
            return
        self._read_bytes += len(data)
        # The log may be read in the middle of a character or of a line's end, so both wait for their second half.
        self._unread = (self._unread + self._decoder.decode(data)).replace("\r\n", "\n")

    def _tail(self) -> str:
        shown = self.text[-TAIL_CHARACTERS:]
        return f"--- console of {self._guest} ---\n{shown or '(empty)'}\n{self._explain()}"
