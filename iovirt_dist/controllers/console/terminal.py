"""The terminal seam, and a log file with a pseudo-terminal behind it.

`NAME.log` gets every byte that the guest transmits, one unbuffered write per batch, before the command completes:
whoever follows the file sees all of it. `NAME.tty` is a link to a pseudo-terminal in raw mode: what is written there
is the guest's input, and the guest's output appears there too, as far as somebody reads it. `NAME.written` tells the
next life what was written last.
"""

from __future__ import annotations

import contextlib
import os
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from iovirt_dist.controllers.console.config import LOG_LIMIT_BYTES
from iovirt_dist.controllers.console.journal import WriteJournal
from iovirt_dist.controllers.console.written import Part, Written


class TerminalPort(Protocol):
    """One terminal."""

    @property
    def written(self) -> Written:
        """What a former life wrote last."""
        ...

    def write(self, data: bytes, owner: bytes, parts: Sequence[Part]) -> None:
        """Take all of `data`: the parts of the owner's commands.

        Raises:
            OSError: Some of it is lost.
        """
        ...

    def read(self, limit_bytes: int) -> bytes:
        """Return what was typed, at most this much; nothing if nothing was."""
        ...

    def fileno(self) -> int:
        """Return the descriptor that is readable when something was typed."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class PtyTerminal:
    """A log file and a pseudo-terminal.

    Args:
        directory: Where ``NAME.log`` and ``NAME.tty`` are; exists.
        name: The terminal's name; fit for a file name.
        log_limit_bytes: A log that would grow beyond this becomes ``NAME.log.1`` (replacing the one before).

    Raises:
        OSError: The log or the link cannot be made, or no pseudo-terminal is free.
    """

    def __init__(self, directory: Path, name: str, log_limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.log_path = directory / f"{name}.log"
        self.tty_path = directory / f"{name}.tty"
        self.dropped_bytes = 0
        """Output that the pseudo-terminal did not take because nobody reads it; the log has it."""
        self._closed = False
        self._log_limit_bytes = log_limit_bytes
        self._log = _open_log(self.log_path)
        status = os.fstat(self._log)
        self._log_bytes, self._log_inode = status.st_size, status.st_ino
        try:
            self._journal = WriteJournal(directory / f"{name}.written")
        except OSError:
            os.close(self._log)
            raise
        try:
            self.written = self._journal.written(self._log_inode, self._log_bytes)
            # The open slave keeps the master from reporting EIO and hang-up while nobody else has it open (pty(7)).
            self._master, self._slave = os.openpty()
        except OSError:
            self._journal.close()
            os.close(self._log)
            raise
        try:
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self._device = os.ttyname(self._slave)
            _link(self.tty_path, self._device)
        except OSError:
            self._close_descriptors()
            raise

    def write(self, data: bytes, owner: bytes = b"", parts: Sequence[Part] = ()) -> None:
        """Append to the log, announced in the journal, then offer to whoever reads the pseudo-terminal.

        Raises:
            OSError: The log did not take all of it (a full disk, say).
        """
        try:
            self._append(data, owner, parts)
        finally:
            try:
                shown = os.write(self._master, data)
            except BlockingIOError:
                shown = 0
            self.dropped_bytes += len(data) - shown

    def read(self, limit_bytes: int) -> bytes:
        """Return what was typed; nothing if nothing was."""
        try:
            return os.read(self._master, limit_bytes)
        except BlockingIOError:
            return b""

    def fileno(self) -> int:
        """Return the pseudo-terminal's master."""
        return self._master

    def close(self) -> None:
        """Remove the link, if it is still ours, and close; the log stays. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            if str(self.tty_path.readlink()) == self._device:
                self.tty_path.unlink()
        self._close_descriptors()

    def _append(self, data: bytes, owner: bytes, parts: Sequence[Part]) -> None:
        if self._log_bytes + len(data) > self._log_limit_bytes and self._log_bytes:
            self._rotate()
        with contextlib.suppress(OSError):  # the record of the write before says nothing of this one: no harm
            self._journal.announce(owner, parts, self._log_inode, self._log_bytes)
        view = memoryview(data)
        while view:
            written = os.write(self._log, view)
            self._log_bytes += written
            view = view[written:]

    def _rotate(self) -> None:
        """Start a new log. A follower has the old one open, reads it to its end and opens the new one."""
        with contextlib.suppress(FileNotFoundError):  # removed by somebody, or no new one could be opened last time
            self.log_path.replace(self.log_path.with_name(f"{self.log_path.name}.1"))
        log = _open_log(self.log_path)
        os.close(self._log)
        self._log, self._log_bytes, self._log_inode = log, 0, os.fstat(log).st_ino

    def _close_descriptors(self) -> None:
        for fd in (self._master, self._slave, self._log):
            os.close(fd)
        self._journal.close()


def remove_stale_links(directory: Path) -> None:
    """Remove the terminal links of a controller that was killed; the caller holds the directory's lock."""
    for path in directory.glob("*.tty"):
        if path.is_symlink():
            path.unlink(missing_ok=True)


def _open_log(path: Path) -> int:
    """Open for appending; only the user may read what a guest prints."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _link(path: Path, device: str) -> None:
    """Make `path` a link to `device` at once, replacing a stale one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(device)
    fresh.replace(path)
