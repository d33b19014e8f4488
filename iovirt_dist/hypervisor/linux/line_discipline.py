"""The terminal's line discipline: editing of what is typed, echo, and treatment of what is written.

After termios(3) and Linux drivers/tty/n_tty.c. Input that is not read yet is bounded; a line that grows too long loses
its end, as there.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

MAX_INPUT_BYTES = 4096
"""Most that waits to be read (MAX_CANON and more)."""


class Signal(enum.IntEnum):
    """Signals that keys send."""

    SIGINT = 2
    SIGQUIT = 3
    SIGTSTP = 20


class Key(enum.IntEnum):
    """Indices of control characters in ``c_cc`` (include/uapi/asm-generic/termbits.h)."""

    VINTR = 0
    VQUIT = 1
    VERASE = 2
    VKILL = 3
    VEOF = 4
    VTIME = 5
    VMIN = 6
    VSTART = 8
    VSTOP = 9
    VSUSP = 10
    VEOL = 11
    VWERASE = 14
    VLNEXT = 15
    VEOL2 = 16


INLCR, IGNCR, ICRNL, IXON, IUTF8 = 0o100, 0o200, 0o400, 0o2000, 0o40000
OPOST, ONLCR, OCRNL = 0o1, 0o4, 0o10
ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHONL, NOFLSH = 0o1, 0o2, 0o10, 0o20, 0o40, 0o100, 0o200
ECHOCTL, ECHOKE, IEXTEN = 0o1000, 0o4000, 0o100000

_SIGNALS = ((Key.VINTR, Signal.SIGINT), (Key.VQUIT, Signal.SIGQUIT), (Key.VSUSP, Signal.SIGTSTP))
_NEWLINE, _RETURN, _TAB = 0x0A, 0x0D, 0x09


@dataclass(frozen=True, slots=True)
class Termios:
    """Settings; the defaults are those of a new terminal on Linux (``tty_std_termios``), with UTF-8.

    Attributes:
        iflag: Input modes.
        oflag: Output modes.
        cflag: 38400 baud, eight bits; without effect.
        lflag: Local modes.
        characters: Control characters, 19, by `Key`; 0 for none.
    """

    iflag: int = ICRNL | IXON | IUTF8
    oflag: int = OPOST | ONLCR
    cflag: int = 0o2277
    lflag: int = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
    characters: bytes = b"\x03\x1c\x7f\x15\x04\x00\x01\x00\x11\x13\x1a\x00\x12\x0f\x17\x16\x00\x00\x00"

    def is_key(self, key: Key, byte: int) -> bool:
        """Whether a byte is this control character."""
        return byte != 0 and self.characters[key] == byte


@dataclass(slots=True)
class LineDiscipline:
    """One terminal's state.

    Attributes:
        termios: Settings.
        echo: Bytes to be shown; taken by the owner.
        signals: What keys asked for; taken by the owner.
        stopped: Output was stopped with ^S.
    """

    termios: Termios = field(default_factory=Termios)
    echo: bytearray = field(default_factory=bytearray)
    signals: list[Signal] = field(default_factory=list)
    stopped: bool = False
    _ready: deque[bytes] = field(default_factory=deque)  # lines; an empty one is an end of file
    _edited: bytearray = field(default_factory=bytearray)
    _ready_bytes: int = 0
    _quote_next: bool = False

    # What programs do

    @property
    def canonical(self) -> bool:
        """Whether input is read by lines."""
        return bool(self.termios.lflag & ICANON)

    def available(self) -> int:
        """Bytes that a read could return now; an end of file that waits counts as one."""
        if self.canonical:
            return self._ready_bytes + (not self._ready_bytes and bool(self._ready))
        return self._ready_bytes + len(self._edited)

    def read(self, length: int) -> bytes:
        """Take what is available: at most a line in canonical mode. An end of file gives nothing."""
        if self.canonical:
            line = self._ready.popleft() if self._ready else b""
        else:
            line = b"".join(self._ready) + self._edited
            self._ready.clear()
            self._edited.clear()
            self._ready_bytes = len(line)
        if len(line) > length:
            self._ready.appendleft(line[length:])
            line = line[:length]
        self._ready_bytes -= len(line)
        return line

    def set_termios(self, termios: Termios) -> None:
        """Change the settings; what is being edited becomes readable where the mode changes."""
        if bool(termios.lflag & ICANON) != self.canonical:
            self._finish_line()
        self.termios = termios

    def flush_input(self) -> None:
        """Forget what was typed and not read."""
        self._ready.clear()
        self._edited.clear()
        self._ready_bytes = 0

    def process_output(self, data: bytes | memoryview) -> bytes:
        """Return what the terminal is sent for bytes that a program writes."""
        flags = self.termios.oflag
        text = bytes(data)
        if flags & OPOST:
            if flags & OCRNL:
                text = text.replace(b"\r", b"\n")
            if flags & ONLCR:
                text = text.replace(b"\n", b"\r\n")
        return text

    # What is typed

    def receive(self, data: bytes) -> int:
        """Take what was typed; returns how many bytes were taken, fewer when nobody reads them."""
        for taken, byte in enumerate(data):
            if self._ready_bytes >= MAX_INPUT_BYTES or len(self._ready) >= MAX_INPUT_BYTES:
                return taken
            if not self.canonical and len(self._edited) + self._ready_bytes >= MAX_INPUT_BYTES:
                return taken
            self._type(byte)
        return len(data)

    def _type(self, byte: int) -> None:
        termios = self.termios
        if self._quote_next:
            self._quote_next = False
            self._insert(byte)
            return
        if self._control_output(byte) or self._send_signal(byte):
            return
        if byte == _RETURN:
            if termios.iflag & IGNCR:
                return
            byte = _NEWLINE if termios.iflag & ICRNL else byte
        elif byte == _NEWLINE and termios.iflag & INLCR:
            byte = _RETURN
        if termios.lflag & ICANON:
            self._edit(byte)
        else:
            self._insert(byte)

    def _control_output(self, byte: int) -> bool:
        """^S and ^Q."""
        termios = self.termios
        if not termios.iflag & IXON:
            return False
        if termios.is_key(Key.VSTOP, byte):
            self.stopped = True
        elif termios.is_key(Key.VSTART, byte):
            self.stopped = False
        else:
            return False
        return True

    def _send_signal(self, byte: int) -> bool:
        r"""^C, ^\ and ^Z: input is forgotten, and output goes on."""
        termios = self.termios
        if not termios.lflag & ISIG:
            return False
        for key, signal in _SIGNALS:
            if termios.is_key(key, byte):
                if not termios.lflag & NOFLSH:
                    self.flush_input()
                self.stopped = False
                self._show(byte)
                if signal not in self.signals:
                    self.signals.append(signal)
                return True
        return False

    def _edit(self, byte: int) -> None:
        """One byte in canonical mode."""
        termios = self.termios
        extended = termios.lflag & IEXTEN
        if termios.is_key(Key.VERASE, byte):
            self._erase()
        elif termios.is_key(Key.VKILL, byte):
            while self._edited:
                self._erase()
        elif extended and termios.is_key(Key.VWERASE, byte):
            self._erase_word()
        elif extended and termios.is_key(Key.VLNEXT, byte):
            self._quote_next = True
        elif termios.is_key(Key.VEOF, byte):
            self._finish_line(end_of_file=True)
        elif byte == _NEWLINE or termios.is_key(Key.VEOL, byte) or (extended and termios.is_key(Key.VEOL2, byte)):
            if termios.lflag & (ECHO | ECHONL):
                self.echo += self.process_output(bytes((byte,)))
            self._edited.append(byte)
            self._finish_line()
        else:
            self._insert(byte)

    def _insert(self, byte: int) -> None:
        """Add a byte; of a line behind its longest length only its end is taken."""
        if len(self._edited) < MAX_INPUT_BYTES - self.canonical:
            self._edited.append(byte)
            self._show(byte)

    def _finish_line(self, *, end_of_file: bool = False) -> None:
        if self._edited or end_of_file:
            self._ready.append(bytes(self._edited))
            self._ready_bytes += len(self._edited)
            self._edited.clear()

    # Echo

    def _show(self, byte: int) -> None:
        if not self.termios.lflag & ECHO:
            return
        if self._is_control(byte):
            self.echo += bytes((0x5E, byte ^ 0x40))
        else:
            self.echo += self.process_output(bytes((byte,)))

    def _is_control(self, byte: int) -> bool:
        """Whether a byte is shown as ^ and a letter."""
        shown_as_is = byte in (_TAB, _NEWLINE) or not self.termios.lflag & ECHOCTL
        return (byte < 0x20 or byte == 0x7F) and not shown_as_is

    def _erase(self) -> None:
        """Take back the last character, which has several bytes in UTF-8."""
        if not self._edited:
            return
        byte = self._edited.pop()
        if self.termios.iflag & IUTF8:
            while byte & 0xC0 == 0x80 and self._edited:
                byte = self._edited.pop()
        if self.termios.lflag & ECHO:
            self.echo += b"\b \b" * (2 if self._is_control(byte) else 1)

    def _erase_word(self) -> None:
        while self._edited and self._edited[-1] in b" \t":
            self._erase()
        while self._edited and self._edited[-1] not in b" \t":
            self._erase()
