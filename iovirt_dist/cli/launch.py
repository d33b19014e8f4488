"""Bring a topology up, in the foreground or detached, and wait until its processes report."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, drop_stdout, note
from iovirt_dist.cli.tail import LinePrinter, LineTail, LogLine, last_words
from iovirt_dist.errors import IovirtError, LocalError
from iovirt_dist.runtime.child import PR_SET_PDEATHSIG
from iovirt_dist.runtime.host_control import HostControl
from iovirt_dist.runtime.host_keeper import HostKeeper
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.scale import adopt
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.supervise import Report, Supervisor, refuse_orphans
from iovirt_dist.topology import Topology

READY_TIMEOUT_S: Final = 15.0

MAX_TRIES: Final = 3
"""A process that has failed so often at its start is not waited for; its supervisor goes on trying."""

_FOLLOW_INTERVAL_S: Final = 0.05


Started = Callable[[], None]
"""Called once nothing is in the way of the start any more."""


def prepare(topology: Topology) -> RunDir:
    """Check what must exist and make the run directory.

    Raises:
        ConfigError: The topology is empty.
        ImageError: A guest's image is missing.
        LocalError: The run directory cannot be made.
    """
    topology.require_processes()
    for error in topology.missing_images():
        raise error
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    return run_dir


async def _supervise(
    topology: Topology, run_dir: RunDir, report: Report, stop: asyncio.Event, hurry: asyncio.Event, started: Started
) -> bool:
    """Run a host's processes and answer the other hosts until `stop`; as `Supervisor.run`.

    Raises:
        ImageError: A guest that the other hosts were told of lacks its image.
        ConfigError: The key for host control is missing or wrong.
        EndpointError: The address for host control cannot be had.
    """
    topology = await asyncio.to_thread(adopt, topology)
    environ = os.environ | topology.environment() | {"PYTHONUNBUFFERED": "1"}
    environ.pop("HONCHO_PROCESS_NAME", None)
    supervisor = Supervisor(run_dir, topology.processes(), environ=environ, cwd=Path.cwd(), report=report)
    control = HostControl(topology) if topology.host else None
    started()
    keeping = asyncio.create_task(HostKeeper(topology, supervisor, report).run())
    try:
        return await supervisor.run(stop, hurry)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        if control is not None:
            control.close()


def run_foreground(topology: Topology) -> int:
    """Run a topology with its logs on stdout until Ctrl-C, SIGTERM or the end of all its processes.

    Returns:
        0 stopped by SIGTERM or ``iovirt down``, 130 by Ctrl-C, 1 if all processes ended by themselves.
    """
    run_dir = prepare(topology)
    with run_dir.locked():
        refuse_orphans(run_dir)
        run_dir.clean()
        try:
            return asyncio.run(_foreground(topology, run_dir))
        finally:
            run_dir.clean()


async def _foreground(topology: Topology, run_dir: RunDir) -> int:
    names = [process.name for process in topology.processes()]
    printer = LinePrinter([*names, SUPERVISOR], colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    tail = LineTail({name: run_dir.log(name) for name in names})
    stop, hurry, interrupted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def show(line: LogLine) -> None:
        try:
            print(printer.format(line), flush=True)
        except OSError:  # whoever read it is gone, as behind a pipe or with its terminal
            drop_stdout()
            stop.set()

    def report(name: str, text: str) -> None:
        tail.add(name, run_dir.log(name))
        show(LogLine(SUPERVISOR, f"{name} {text}"))

    def on_signal(number: signal.Signals) -> None:
        if number is signal.SIGHUP:  # comes from the shell and from the kernel: twice is no hurry
            stop.set()
            return
        if number is signal.SIGINT:
            interrupted.set()
        (hurry if stop.is_set() else stop).set()

    async def follow() -> None:
        while True:
            for line in tail.read():
                show(line)
            await asyncio.sleep(_FOLLOW_INTERVAL_S)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    following = asyncio.create_task(follow())
    try:
        asked = await _supervise(topology, run_dir, report, stop, hurry, lambda: None)
    finally:
        following.cancel()
    for line in tail.read():
        show(line)
    tail.close()
    if not asked:
        note("every process ended by itself")
        return EXIT_FAILED
    return EXIT_INTERRUPTED if interrupted.is_set() else EXIT_DONE


def start_detached(topology: Topology, *, die_with_parent: bool = False) -> int:
    """Start a supervisor in the background and return once it holds the run directory.

    Args:
        topology: What to run.
        die_with_parent: Whether it ends with the calling process.

    Returns:
        The supervisor's process number.

    Raises:
        LocalError: It could not start; the reason is the supervisor's own.
    """
    run_dir = prepare(topology)
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid() if die_with_parent else None
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _supervise_detached(topology, run_dir, writer, parent)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read().decode("utf-8", "replace")
    if text != "ok":
        os.waitpid(pid, 0)
        raise LocalError(text or f"the supervisor died; see {run_dir.log(SUPERVISOR)}")
    return pid


def _supervise_detached(topology: Topology, run_dir: RunDir, answer: int, parent: int | None) -> NoReturn:
    """The supervisor's process: never returns into its caller's stack, whose cleanups belong to the parent."""
    code = EXIT_FAILED
    try:
        os.setsid()
        if parent is not None:
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                raise LocalError("the caller is gone")
        _redirect_stdio(run_dir)
        with run_dir.locked():
            refuse_orphans(run_dir)
            run_dir.clean()
            try:
                code = asyncio.run(_detached(topology, run_dir, answer))
            finally:
                run_dir.clean()
    except IovirtError as error:
        os.write(answer, str(error).encode())
    except BaseException:  # the last frame of this process; the log gets it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect_stdio(run_dir: RunDir) -> None:
    """Let go of the caller's terminal and pipes."""
    log = run_dir.open_log(SUPERVISOR)
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)


async def _detached(topology: Topology, run_dir: RunDir, answer: int) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)

    def report(name: str, text: str) -> None:
        with contextlib.suppress(OSError):  # a full file system may have room the next time
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name} {text}", flush=True)

    def started() -> None:
        os.write(answer, b"ok")
        os.close(answer)

    return EXIT_DONE if await _supervise(topology, run_dir, report, stop, hurry, started) else EXIT_FAILED


def wait_ready(
    topology: Topology, timeout_s: float = READY_TIMEOUT_S, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Wait until every process has written its status file.

    Args:
        topology: A topology whose supervisor runs.
        timeout_s: How long to wait.
        sleep: For tests.

    Returns:
        A line for each process that did not get so far, or only for those that failed again and again; empty if all
        did.
    """
    run_dir = RunDir(topology.run_dir)
    deadline = time.monotonic() + timeout_s
    while True:
        alive = {name for name, status in read_status(run_dir).items() if status.alive}
        missing = [process.name for process in topology.processes() if process.name not in alive]
        rows = _rows(run_dir)
        lost = [name for name in missing if rows is None or rows.get(name, {}).get("state") == "ended"]
        failing = [name for name in missing if _tries(rows, name) >= MAX_TRIES]
        if not missing or lost == missing or failing or time.monotonic() > deadline:
            chosen = [name for name in missing if name in failing or name in lost] if failing else missing
            return [_describe(run_dir, name, (rows or {}).get(name, {})) for name in chosen]
        sleep(_FOLLOW_INTERVAL_S)


def _rows(run_dir: RunDir) -> dict[str, dict[str, object]] | None:
    """The supervisor's table; None when it has ended; empty before it has written one."""
    status = read_status_file(run_dir.status(SUPERVISOR))
    if status is None:
        return {} if run_dir.is_locked() else None
    rows: dict[str, dict[str, object]] = status.content.get("processes", {})
    return rows


def _tries(rows: dict[str, dict[str, object]] | None, name: str) -> int:
    """How often a process has failed: each failure but the last for good was answered by a restart."""
    restarts = (rows or {}).get(name, {}).get("restarts", 0)
    return restarts if isinstance(restarts, int) else 0


def _describe(run_dir: RunDir, name: str, row: dict[str, object]) -> str:
    """Say why a process is not ready: its own last words if it failed and left any."""
    state, end = row.get("state", "not running"), row.get("exit", "")
    words = last_words(run_dir, name) if end else ""
    if words:
        return f"{name}: {words.removeprefix(f'{name}: ')} ({state}, {end}; see 'iovirt logs {name}')"
    return f"{name}: {state}{f' ({end})' if end else ''}; see 'iovirt logs {name}'"
