"""Services forked from a server that has their code loaded: up in 25 ms, where a new interpreter needs 250.

The server is `multiprocessing`'s, one for each test runner: it starts with the first process and ends with the runner.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import get_args

from iovirt_dist.topology.specs import Kind, ProcessSpec

_PRELOADED = (
    __name__,
    *(f"services.{kind}" for kind in get_args(Kind)),
    *(f"iovirt_dist.runtime.{name}_process" for name in ("guest", "nbd", "script", "vm")),
    "uvloop",
    "pytest",  # multiprocessing runs the runner's own script again, which only imports it
)
_HIGHEST_INHERITED = 1024
_FOLDER = "IOVIRT_FORK_SERVER"
"""Setting that only the server sees: the folder of its socket, which goes with it, however its runner has ended."""

if _folder := os.environ.pop(_FOLDER, ""):  # this is the server
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)


class ForkedService:
    """One process, with what `subprocess.Popen` has for it.

    Args:
        spec: The service and its name; its command is what ``python -m`` would run.
        log: File that what it prints is added to.
        environ: Its environment, whole.
        folder: Its current folder.

    Attributes:
        pid: Process number.
    """

    def __init__(self, spec: ProcessSpec, log: Path, environ: Mapping[str, str], folder: Path) -> None:
        arguments = (f"services.{spec.kind}", str(spec.name), log, dict(environ), folder)
        self._process = _started_server().Process(target=_serve, args=arguments, name=str(spec.name), daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it lives."""
        return self._process.exitcode

    def wait(self) -> None:
        """Wait until it has ended."""
        self._process.join()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _started_server() -> ForkServerContext:
    """Start the server of this process; returns what makes processes with it.

    Its socket's path must be short, whatever TMPDIR is (unix(7)), so it gets a folder below /tmp.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    before = tempfile.tempdir
    tempfile.tempdir = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="iovirt-", dir="/tmp")
    try:
        forkserver.ensure_running()
    finally:
        tempfile.tempdir = before
        del os.environ[_FOLDER]
    return context


def _serve(module: str, name: str, log: Path, environ: dict[str, str], folder: Path) -> None:
    """Become what ``python -m MODULE NAME`` is: descriptors, session, environment, folder and arguments of its own."""
    os.closerange(3, _HIGHEST_INHERITED)  # among them what would keep the server alive when its test runner is killed
    printed = os.O_WRONLY | os.O_APPEND
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, printed), (2, log, printed)):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = [module, name]
    sys.exit(importlib.import_module(module).main())
