"""Network namespaces: hosts of a test, with a network between them that can be cut."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
"""linux/sched.h."""


def _call(function: str, *arguments: int) -> None:
    """Call the C library; Python has these functions from 3.12 on.

    Raises:
        OSError: The call failed.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Give this thread, and the processes that it starts, a network of their own that ends with the block.

    Raises:
        OSError: It is not permitted.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
    finally:
        os.close(before)


def _why_not_permitted() -> str:
    """Say why tests cannot have networks of their own; empty if they can."""
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    if shutil.which("ip") is None:
        return "no ip: install the Debian package iproute2"
    try:
        with own_network():
            return ""
    except OSError as error:
        return f"no network namespaces: {error.strerror} (needs root)"


NOT_PERMITTED = _why_not_permitted()
"""Why tests that need networks of their own are skipped; empty if they can run."""
