"""What a script's author is told when the script fails: one line that names their own line, and a traceback of use."""

from __future__ import annotations

import traceback
from typing import Final

from iovirt_dist.errors import IovirtError

_MAX_TEXT: Final = 500
_OURS: Final = ("/iovirt_dist/guest/script/", "/iovirt_dist/runtime/", "/importlib/", "<frozen importlib")
"""Parts of the file names of what runs scripts and of the drivers that they use."""

_TOLD: Final = (IovirtError, SyntaxError, ImportError)
"""Errors whose text and place say everything; a traceback would only hide them."""


def failure_line(error: BaseException) -> str:
    """Return what failed and where: ``ValueError: on purpose (double.py:12)``, the script's own line if it has one."""
    what = str(error) if isinstance(error, IovirtError) else f"{type(error).__name__}: {error}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame)]
    place = f" ({own[-1].filename.rpartition('/')[2]}:{own[-1].lineno})" if own else ""
    return f"{' '.join(what.split())[:_MAX_TEXT]}{place}"


def failure_trace(error: BaseException) -> str:
    """Return the traceback from the script's first line on; empty if the line of `failure_line` is enough."""
    if isinstance(error, _TOLD):
        return ""
    told = traceback.TracebackException.from_exception(error)
    first = next((number for number, frame in enumerate(told.stack) if not _is_ours(frame)), 0)
    told.stack = traceback.StackSummary.from_list(list(told.stack)[first:])
    return "".join(told.format()).rstrip()


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return any(part in frame.filename for part in _OURS)
