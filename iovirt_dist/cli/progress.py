"""How far a long command is, on stderr: a bar for people, lines for logs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

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
