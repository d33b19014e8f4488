"""Follow files that other processes write: bytes of one file, or lines of several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from iovirt_dist.cli.output import ERROR, printable
from iovirt_dist.runtime.rundir import RunDir

_CHUNK_BYTES: Final = 1 << 16

MAX_LINE_BYTES: Final = 1 << 16
"""A longer line is shown in parts: a process that never ends its line must not fill our memory."""


class ByteTail:
    """The bytes appended to a file, across its creation, truncation and replacement.

    Args:
        path: The file; need not exist yet.
        history_bytes: How much of what is there already to read first; None for all.
    """

    def __init__(self, path: Path, history_bytes: int | None = 0) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._open()
        if self._file is not None and history_bytes is not None:
            size = os.fstat(self._file.fileno()).st_size
            self._file.seek(max(size - history_bytes, 0))

    def read(self) -> bytes:
        """Return what is new, at most 64 KiB; empty if there is nothing."""
        if self._file is None:
            self._open()
        if self._file is None:
            return b""
        data = self._file.read(_CHUNK_BYTES)
        if not data and self._is_replaced():
            self.close()
            self._open()
        return data

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb", buffering=0)
        except FileNotFoundError:
            self._file = None

    def _is_replaced(self) -> bool:
        """Whether the path leads to another file now, or the file has become shorter."""
        assert self._file is not None
        ours = os.fstat(self._file.fileno())
        if ours.st_size < self._file.tell():
            return True
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


class LogLine(NamedTuple):
    """A line of a process's log.

    Attributes:
        name: The process.
        text: The line without its end and without the process's own prefix; printable.
    """

    name: str
    text: str


def clean_line(name: str, line: bytes) -> LogLine:
    """Make a log line fit for a terminal."""
    text = printable(line.decode("utf-8", "replace").rstrip("\r\n"))
    return LogLine(name, text.removeprefix(f"{name}: "))


class LineTail:
    """The lines appended to several logs.

    Args:
        paths: Log file by process name.
        from_start: Whether to begin with the lines that are there already.
    """

    def __init__(self, paths: dict[str, Path], *, from_start: bool = False) -> None:
        self._tails = {name: ByteTail(path, None if from_start else 0) for name, path in paths.items()}
        self._partial = dict.fromkeys(paths, b"")

    def add(self, name: str, path: Path) -> None:
        """Follow one more log, from its end; one that is followed already goes on."""
        if name not in self._tails:
            self._tails[name] = ByteTail(path)
            self._partial[name] = b""

    def read(self) -> list[LogLine]:
        """Return the complete lines that are new; log by log, as the files carry no common clock."""
        lines: list[LogLine] = []
        for name, tail in self._tails.items():
            while data := tail.read():
                *complete, rest = (self._partial[name] + data).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    complete, rest = [*complete, rest], b""
                self._partial[name] = rest
                lines += [clean_line(name, line) for line in complete]
        return lines

    def close(self) -> None:
        """Close the files."""
        for tail in self._tails.values():
            tail.close()


def last_lines(path: Path, count: int) -> list[bytes]:
    """Return the last lines of a file without their ends; an absent file has none."""
    if count <= 0:
        return []
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            data = b""
            while position > 0 and data.count(b"\n") <= count:
                step = min(position, _CHUNK_BYTES)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except FileNotFoundError:
        return []
    return data.splitlines()[-count:]


def last_words(run_dir: RunDir, name: str) -> str:
    """Return the last line of a process's log, fit for an error message; empty if there is none."""
    lines = last_lines(run_dir.log(name), 1)
    return clean_line(name, lines[0]).text.removeprefix(ERROR) if lines else ""


class LinePrinter:
    """Prints log lines behind their process's name, as honcho does.

    Args:
        names: All names, for the width and the colours.
        colour: Whether to use ANSI colours.
    """

    _COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
    """SGR foreground colours, ECMA-48 section 8.3.117; red is left for errors."""

    def __init__(self, names: Iterable[str], *, colour: bool) -> None:
        listed = list(names)
        self._width = max((len(name) for name in listed), default=0)
        codes = {name: self._COLOURS[index % len(self._COLOURS)] for index, name in enumerate(listed)}
        self._codes = codes if colour else {}

    def format(self, line: LogLine) -> str:
        """Return one line of output without its end."""
        prefix = f"{line.name:<{self._width}} |"
        if line.name in self._codes:
            prefix = f"\x1b[{self._codes[line.name]}m{prefix}\x1b[0m"
        return f"{prefix} {line.text}"
