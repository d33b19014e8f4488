"""What commands print: JSON or tables on stdout, notes and errors on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

ERROR: Final = "iovirt: error: "
"""How the line of an error begins, also in the log of a process that ends with it."""

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells report it."""


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object, indented."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table without borders, as wide as the terminal or COLUMNS says; into a pipe all of it."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - a quarter of the start-up time, and --json needs none of it
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    columns_text = os.environ.get("COLUMNS", "")
    wanted = int(columns_text) if columns_text.isascii() and columns_text.isdecimal() else 0
    Console(width=wanted or (None if sys.stdout.isatty() else 200)).print(table)


def note(text: str) -> None:
    """Tell a person something on stderr, where it does not disturb a result."""
    print(f"iovirt: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """Print the one line of an error."""
    print(f"{ERROR}{' '.join(text.split())}", file=sys.stderr, flush=True)


def drop_stdout() -> None:
    """Have no standard output any more: nobody reads it, and what could not be written would raise again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def format_age(seconds: float) -> str:
    """Write a time span in at most two units: ``7s``, ``3m12s``, ``5h07m``, ``2d03h``."""
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes == 0:
        return f"{whole}s"
    if hours == 0:
        return f"{minutes}m{whole % 60:02}s"
    if days == 0:
        return f"{hours}h{minutes % 60:02}m"
    return f"{days}d{hours % 24:02}h"


def printable(text: str) -> str:
    """Replace what could steer a terminal: log lines may hold text that a guest chose."""
    return "".join(char if char.isprintable() or char == "\t" else "�" for char in text)
