"""Keys of a terminal while something is shown on it: read one by one, without echo, and given back as it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Final

END: Final = "\x04"
"""What is told when nobody will press a key any more: the terminal has hung up."""

Wait = Callable[[float], str]
"""Waits so many seconds at most; returns what was pressed, empty if time is over or the window has another size.

Who was asked to end by a signal is told here, and nowhere else: KeyboardInterrupt for SIGINT, else SystemExit.
"""

_END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def keys() -> Iterator[Wait]:
    """Read keys from stdin if it is a terminal; Ctrl-C stays what it is, and the terminal cannot be suspended.

    A program that is stopped by Ctrl-Z would leave the screen as it is, so that key does nothing.
    """
    descriptor = sys.stdin.fileno() if sys.stdin.isatty() else None
    signalled, notify = os.pipe()
    os.set_blocking(notify, False)
    asked: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        """An exception from here could be raised where it is lost, such as in a destructor."""
        if number in _END_SIGNALS:
            asked.append(number)
        with contextlib.suppress(BlockingIOError):  # then it is known already
            os.write(notify, b".")

    def wait(timeout_s: float) -> str:
        inputs = [signalled] if descriptor is None else [signalled, descriptor]
        ready, _, _ = select.select(inputs, [], [], max(timeout_s, 0))
        if signalled in ready:
            os.read(signalled, 4096)
        if asked:
            raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(128 + asked[0])
        if descriptor is None or descriptor not in ready:
            return ""
        return os.read(descriptor, 64).decode("ascii", "replace") or END

    handlers = {number: signal.signal(number, on_signal) for number in (*_END_SIGNALS, signal.SIGWINCH)}
    try:
        with _cbreak(descriptor) if descriptor is not None else contextlib.nullcontext():
            yield wait
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(signalled)
        os.close(notify)


@contextlib.contextmanager
def _cbreak(descriptor: int) -> Iterator[None]:
    """Give keys at once and do not show them: termios(3), ICANON and ECHO off, VSUSP disabled."""
    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    changed[6][termios.VSUSP] = b"\0"
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
