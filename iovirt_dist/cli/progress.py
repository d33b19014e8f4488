"""How far a long command is, on stderr: a bar for people, lines for logs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from iovirt_dist.cli.output import note

Say = Callable[[str], None]
"""Tells what is done next."""


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Say]:
    """Show a bar that grows with each thing that is told, if stderr is a terminal; else a line for each.

    It is drawn only when something is told: a thread that draws would be there when processes are forked.

    Args:
        steps: How many things will be told.
    """
    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
    with bar:
        task = bar.add_task("", total=steps)
        told = 0

        def say(text: str) -> None:
            nonlocal told
            bar.update(task, description=text, completed=told, refresh=True)
            told += 1

        yield say


PATIENCE_S: Final = 2.0
"""What is done sooner needs no progress."""

INTERVAL_S: Final = 0.5


@contextlib.contextmanager
def copying(total_bytes: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show how far a copy is, if it takes more than two seconds and stderr is a terminal; else a line at 2, 4, 8 s ...

    Args:
        total_bytes: What is to be copied.
        what: Is done, such as ``export disk0/all``.

    Yields:
        What takes how many bytes were done more.
    """
    begin = time.monotonic()
    terminal = sys.stderr.isatty()
    done, due, shown = 0, PATIENCE_S, False

    def advance(length: int) -> None:
        nonlocal done, due, shown
        done += length
        elapsed = time.monotonic() - begin
        if elapsed < due:
            return
        due, shown = elapsed + INTERVAL_S if terminal else 2 * elapsed, True
        text = f"iovirt: {what}: {done >> 20} of {total_bytes >> 20} MiB ({100 * done // max(total_bytes, 1)} %)"
        print(f"\r{text}\x1b[K" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        if shown and terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
