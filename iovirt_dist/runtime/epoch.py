"""Numbers the lives of a process: greater in every later one, whatever the clock does between them.

The time of day alone would do as long as it only goes on. It is set back by people and by NTP, and the later life of a
process would then be fenced by its own earlier one. So each life's number is kept in the run directory, and the next
one is greater. The number stays a time where the clock is right, so that a process which is started on another host
after its first one was lost, with another run directory, is the later one there, too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.wire.session import MAX_EPOCH

LAST_KEPT: Final = 8 * 10**18
"""The year 2223: a file with a greater number is damaged, and would leave no room for later lives."""


def next_epoch(run_dir: RunDir, name: str, now_ns: int) -> int:
    """Begin a life: return its number and keep it.

    A file that is missing, damaged or not to be written is no reason not to start: the clock is used then.

    Args:
        run_dir: Of the process; created if absent.
        name: The process.
        now_ns: Time of day, nanoseconds since 1970.

    Returns:
        1..`MAX_EPOCH`.

    Raises:
        LocalError: The run directory cannot be made.
    """
    run_dir.create()
    path = run_dir.epoch(name)
    epoch = min(max(now_ns, _kept(path) + 1), MAX_EPOCH)
    scratch = path.with_name(f"{name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        scratch.write_text(f"{epoch}\n", "ascii")
        scratch.replace(path)
    return epoch


def _kept(path: Path) -> int:
    """The number of the last life; 0 if none is known."""
    try:
        text = path.read_text("ascii")[:20].strip()
    except (OSError, UnicodeDecodeError):
        return 0
    kept = int(text) if text.isdecimal() else 0
    return kept if kept <= LAST_KEPT else 0
