"""The console controller's configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_TERMINALS: Final = 1024
"""Most terminals that one controller opens; each has two file descriptors."""

LOG_LIMIT_BYTES: Final = 64 << 20
"""A log that reaches this becomes ``NAME.log.1`` and a new one begins."""

TERMINAL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a terminal may be called: it becomes a file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleConfig:
    """What a console controller serves.

    Attributes:
        directory: Where logs and links to the pseudo-terminals are; created with mode 0700 if absent.
        terminals: Names that may be identified, or patterns of them with ``*`` and ``?`` (``alice-*``).
        log_limit_bytes: A log that reaches this is rotated once.
        queue_credits: Commands that one queue pair may have in flight; a parked receive for every guest counts.
        burst: Commands taken from one queue pair before the next has its turn.
    """

    directory: Path
    terminals: tuple[str, ...]
    log_limit_bytes: int = LOG_LIMIT_BYTES
    queue_credits: int = 1024
    burst: int = 8
