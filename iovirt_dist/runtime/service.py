"""Life of a service process: choose the loop, turn signals into a request to stop, errors into one line."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from iovirt_dist.errors import ConfigError, ImageError, IovirtError
from iovirt_dist.runtime.allocator import keep_memory
from iovirt_dist.runtime.log_limit import LogLimit
from iovirt_dist.topology.selection import UnusedServiceError

log = logging.getLogger(__name__)

Main = Callable[[asyncio.Event], Awaitable[None]]
"""A service: runs until the event is set, then takes itself down."""

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def run_service(name: str, main: Main) -> int:
    """Run a service until SIGTERM or SIGINT.

    Args:
        name: The process, for its log lines.
        main: What it does.

    Returns:
        The exit status: 0 stopped as asked, 1 failed, 2 wrong configuration.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LogLimit())
    logging.basicConfig(
        level=os.environ.get("IOVIRT_LOG", "INFO").upper(), format=f"{name}: %(message)s", handlers=[handler]
    )
    die_with_parent()
    keep_memory()
    try:
        run_loop(_until_signalled(main))
    except IovirtError as error:
        print(f"iovirt: error: {name}: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        return EXIT_USAGE if isinstance(error, (ConfigError, ImageError)) else EXIT_FAILED
    return EXIT_DONE


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop, or on asyncio's own loop where uvloop is missing."""
    try:
        import uvloop  # noqa: PLC0415 - optional on other Python implementations
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def die_with_parent() -> None:
    """Under a process manager (honcho, `iovirt up`) end with it, even if it is killed: no orphans.

    prctl(2), PR_SET_PDEATHSIG.
    """
    if os.environ.get("HONCHO_PROCESS_NAME") or os.environ.get("IOVIRT_SUPERVISED"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _until_signalled(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await main(stop)
    except UnusedServiceError as error:  # were it to end, honcho would end all others
        log.info("%s: idle", error)
        await stop.wait()
