"""Performs the console core's actions on terminals: the thin I/O between the core and the seam."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.controllers.console.config import ConsoleConfig
from iovirt_dist.controllers.console.core import (
    AcceptInput,
    CloseTerminal,
    ConsoleAccess,
    ConsoleOutcome,
    InputArrived,
    OpenTerminal,
    TerminalOpened,
    TerminalWritten,
    WriteTerminal,
)
from iovirt_dist.controllers.console.terminal import PtyTerminal, TerminalPort, remove_stale_links
from iovirt_dist.controllers.locking import lock_medium
from iovirt_dist.errors import ImageError

READ_BYTES: Final = 4096
"""Most input taken at once: what a pseudo-terminal holds (N_TTY_BUF_SIZE)."""

_log = logging.getLogger(__name__)

OpenPort = Callable[[str], TerminalPort]


@dataclass(slots=True, eq=False)
class _Port:
    """An open terminal.

    Attributes:
        name: The terminal's.
        port: The seam.
        space_bytes: Input that the core still takes; the descriptor is watched while this is above 0.
        failed: The last write failed; said once until one succeeds.
    """

    name: str
    port: TerminalPort
    space_bytes: int = 0
    failed: bool = False


class ConsoleRunner:
    """Hands of one console core.

    Args:
        open_port: Makes the terminal of a name; raises OSError.
        deliver: Takes input as it arrives; called in the loop's thread.
        add_reader: ``add_reader(fd, callback)``, as of an asyncio loop.
        remove_reader: ``remove_reader(fd)``.
        release: Called by `close` when every terminal has been let go of.
    """

    def __init__(
        self,
        open_port: OpenPort,
        deliver: Callable[[ConsoleOutcome], None],
        add_reader: Callable[[int, Callable[[], None]], object],
        remove_reader: Callable[[int], object],
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_port = open_port
        self._deliver = deliver
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self._release = release
        self._ports: dict[int, _Port] = {}

    def perform(self, action: ConsoleAccess) -> ConsoleOutcome | None:
        """Do an action; return its outcome if it has one."""
        if isinstance(action, WriteTerminal):
            return self._write(action)
        if isinstance(action, AcceptInput):
            self._accept(action)
            return None
        if isinstance(action, CloseTerminal):
            self._close(action)
            return None
        return self._open(action)

    def close(self) -> None:
        """Let go of every terminal."""
        for terminal in list(self._ports):
            self._close(CloseTerminal(terminal))
        self._release()

    def _close(self, action: CloseTerminal) -> None:
        port = self._ports.pop(action.terminal)
        if port.space_bytes:
            self._remove_reader(port.port.fileno())
        port.port.close()

    def _open(self, action: OpenTerminal) -> TerminalOpened:
        try:
            port = self._ports[action.terminal] = _Port(action.name, self._open_port(action.name))
        except OSError as error:
            _log.error("%s: terminal cannot be opened: %s", action.name, error)
            return TerminalOpened(action.terminal, error.errno or errno.EIO)
        _log.info("%s: terminal opened", action.name)
        return TerminalOpened(action.terminal, 0, port.port.written)

    def _write(self, action: WriteTerminal) -> TerminalWritten:
        port = self._ports[action.terminal]
        try:
            port.port.write(action.data, action.owner, action.parts)
        except OSError as error:
            if not port.failed:
                _log.error("%s: output is lost: %s", port.name, error)
            port.failed = True
            return TerminalWritten(action.terminal, error.errno or errno.EIO)
        port.failed = False
        return TerminalWritten(action.terminal, 0)

    def _accept(self, action: AcceptInput) -> None:
        port = self._ports[action.terminal]
        if action.space_bytes and not port.space_bytes:
            self._add_reader(port.port.fileno(), lambda: self._readable(action.terminal, port))
        port.space_bytes = action.space_bytes

    def _readable(self, terminal: int, port: _Port) -> None:
        data = port.port.read(min(port.space_bytes, READ_BYTES))
        if not data:
            return
        port.space_bytes -= len(data)
        if not port.space_bytes:
            self._remove_reader(port.port.fileno())
        self._deliver(InputArrived(terminal, data))


class TerminalDirectory:
    """The directory of a console controller's terminals, locked while it is open.

    Args:
        config: Names the directory, which is created if absent.

    Raises:
        ImageError: It cannot be made or another controller uses it.
    """

    def __init__(self, config: ConsoleConfig) -> None:
        self._config = config
        path: Path = config.directory
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(
                f"cannot be used for terminals ({os.strerror(error.errno or 0)})",
                str(path),
                "name a directory that this user may write",
            ) from None
        try:
            lock_medium(self._fd, path)
            remove_stale_links(path)
        except BaseException:
            os.close(self._fd)
            raise

    def open_port(self, name: str) -> PtyTerminal:
        """Make the terminal of a name; see `PtyTerminal`."""
        return PtyTerminal(self._config.directory, name, self._config.log_limit_bytes)

    def close(self) -> None:
        """Unlock."""
        os.close(self._fd)
