"""``/dev/console`` and ``/dev/tty``: the guest's terminal, with a line discipline before the backend."""

from __future__ import annotations

import stat
import struct

from iovirt_dist.abi import linux_codes as codes
from iovirt_dist.abi.layouts import TERMIOS, WINDOW
from iovirt_dist.drivers.backend import TerminalBackend
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.line_discipline import Key, LineDiscipline, Signal, Termios
from iovirt_dist.hypervisor.linux.nodes import O_NONBLOCK, FileStatus, Node
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Steps, TerminalChange, clock
from iovirt_dist.wire.codec import Buffer

_TENTH_NS = 100_000_000
"""Unit of VTIME."""
_WRITE_BYTES = 2048
"""Most that one pass of a write gives the backend, before its newlines are doubled."""
_FLAGS = struct.Struct("<4I")
"""Start of ``struct termios``."""


class Terminal:
    """The terminal of a guest, shared by all its device files.

    Args:
        backend: Where output goes; None for a guest without one: output vanishes, input never comes.
        rows: Height, lines.
        columns: Width, characters.
    """

    def __init__(self, backend: TerminalBackend | None, rows: int = 24, columns: int = 80) -> None:
        self._backend = backend
        self._discipline = LineDiscipline()
        self._window = WINDOW.pack({"rows": rows, "columns": columns})
        self._group = 0
        self._held = b""  # output that the backend had no space for

    def receive(self, data: bytes) -> int:
        """Take what was typed; returns how many bytes were taken."""
        taken = self._discipline.receive(data)
        self._show_echo()
        return taken

    def take_signals(self) -> list[Signal]:
        """Return what keys asked for since the last time."""
        signals, self._discipline.signals = self._discipline.signals, []
        return signals

    def readable(self) -> bool:
        """Whether a read would return something."""
        return self._discipline.available() > 0

    def writable(self) -> bool:
        """Whether a write would go on."""
        return self._drain()

    def resume(self) -> None:
        """The backend has space again: pass on what is held."""
        self._drain()

    def read(self, length: int, *, blocking: bool) -> Steps[Buffer]:
        """Read a line, or in raw mode what VMIN and VTIME ask for (termios(3), noncanonical mode)."""
        discipline = self._discipline
        deadline: int | None = None
        seen = -1
        while True:
            available = discipline.available()
            minimum, tenths = self._wanted(length)
            if available >= max(minimum, 1) or not (minimum or tenths):
                return discipline.read(length)
            if not blocking:
                if available:
                    return discipline.read(length)
                raise CallError(Errno.EAGAIN)
            if tenths and available != seen and (available or not minimum):
                deadline, seen = (yield from clock()) + tenths * _TENTH_NS, available
            outcome = yield TerminalChange(deadline)
            if deadline is not None and outcome.now_ns >= deadline and discipline.available() == available:
                return discipline.read(length)

    def write(self, data: memoryview, *, blocking: bool) -> Steps[int]:
        """Write everything, waiting for space; without blocking what can be taken now."""
        done = 0
        while done < len(data):
            if self._drain():
                piece = data[done : done + _WRITE_BYTES]
                self._held = self._discipline.process_output(piece)
                done += len(piece)
            elif blocking:
                yield TerminalChange()
            else:
                break
        while not self._drain() and self._held and blocking:
            yield TerminalChange()
        if data and not done:
            raise CallError(Errno.EAGAIN)
        return done

    def ioctl(self, code: int, request: Request) -> Reply | Steps[Reply]:
        """Settings, size and process group (ioctl_tty(2))."""
        if code == codes.TCGETS:
            termios = self._discipline.termios
            fields = {name: getattr(termios, name) for name in ("iflag", "oflag", "cflag", "lflag", "characters")}
            return Reply(0, {"argument": TERMIOS.pack(fields)})
        if code in (codes.TCSETS, codes.TCSETSW, codes.TCSETSF):
            return self._set(request.data("argument"), flush=code == codes.TCSETSF)
        if code == codes.TCFLSH:
            if request.word("argument") != 1:
                self._discipline.flush_input()
            return Reply()
        if code == codes.TIOCGWINSZ:
            return Reply(0, {"argument": self._window})
        if code == codes.TIOCSWINSZ:
            self._window = bytes(request.data("argument"))
            return Reply()
        if code == codes.FIONREAD:
            return Reply(0, {"argument": self._discipline.available().to_bytes(4, "little")})
        return self._group_ioctl(code, request)

    def _group_ioctl(self, code: int, request: Request) -> Reply:
        if code == codes.TIOCGPGRP:
            group = self._group or request.process.pid
            return Reply(0, {"argument": group.to_bytes(4, "little")})
        if code == codes.TIOCSPGRP:
            self._group = int.from_bytes(request.data("argument"), "little") & 0x7FFF_FFFF
            return Reply()
        if code == codes.TCSBRK:
            return Reply()
        raise CallError(Errno.ENOTTY)

    def _wanted(self, length: int) -> tuple[int, int]:
        """Bytes that a read waits for, and how long, tenths of a second; 0 for no limit."""
        if self._discipline.canonical:
            return 1, 0
        characters = self._discipline.termios.characters
        return min(characters[Key.VMIN], length), characters[Key.VTIME]

    def _set(self, data: memoryview, *, flush: bool) -> Reply:
        """Take over settings; baud rates and such are kept and have no effect."""
        discipline = self._discipline
        iflag, oflag, cflag, lflag = _FLAGS.unpack_from(data)
        discipline.set_termios(Termios(iflag, oflag, cflag, lflag, bytes(data[_FLAGS.size + 1 :])))
        if flush:
            discipline.flush_input()
        return Reply()

    def _drain(self) -> bool:
        """Pass on what is held; returns whether more can be taken."""
        if self._discipline.stopped:
            return False
        if self._backend is None:
            self._held = b""
            return True
        if self._held:
            space = self._backend.space()
            if space > 0:
                self._backend.transmit(self._held[:space])
                self._held = self._held[space:]
        return not self._held and self._backend.space() > 0

    def _show_echo(self) -> None:
        """Echo goes behind what is held; what does not fit is lost."""
        echo = self._discipline.echo
        if echo and self._drain() and self._backend is not None:
            self._backend.transmit(bytes(echo[: self._backend.space()]))
        echo.clear()


class TerminalDevice(Node):
    """A device file of the terminal.

    Args:
        path: Absolute path.
        inode: Its number.
        device: Major and minor number.
        terminal: What is behind it.
    """

    is_device = True

    def __init__(self, path: str, inode: int, device: tuple[int, int], terminal: Terminal) -> None:
        super().__init__(path, inode)
        self._device = device
        self._terminal = terminal

    def status(self) -> FileStatus:
        """A character device."""
        return FileStatus(stat.S_IFCHR | 0o620, 0, self.inode, self._device)

    def read(self, position: int, length: int, flags: int) -> Steps[Buffer]:
        """Read what was typed."""
        return self._terminal.read(length, blocking=not flags & O_NONBLOCK)

    def write(self, position: int, data: memoryview, flags: int) -> Steps[int]:
        """Write to the screen."""
        return self._terminal.write(data, blocking=not flags & O_NONBLOCK)

    def ioctl(self, code: int, request: Request) -> Reply | Steps[Reply]:
        """Terminal settings."""
        return self._terminal.ioctl(code, request)

    def readable(self) -> bool:
        """Whether there is a line, or in raw mode a byte."""
        return self._terminal.readable()

    def writable(self) -> bool:
        """Whether there is space."""
        return self._terminal.writable()
