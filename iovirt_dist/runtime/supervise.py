"""Supervision: start a topology's processes, restart what crashes, stop all in order, leave nothing behind.

One mechanism for ``iovirt up`` in the foreground and detached. supervisord was measured first (4.3.0, three idle
processes): first start after 1.1 s, restart after SIGKILL 1.02 s, stop 2.7 s, because its loop looks at children once a
second; with a lease of 2 s half of an outage would be the supervisor's. This one takes 0.05, 0.14 and 0.01 s, and
shares its code with the foreground, which honcho's manager does not fit (one process ends, all end).

Each process has its own process group (Ctrl-C reaches the supervisor alone, which then stops guests, hypervisors and
controllers in this order) and dies with the supervisor (`iovirt_dist.runtime.child`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iovirt_dist.errors import LocalError
from iovirt_dist.runtime import child
from iovirt_dist.runtime.restart import Backoff, describe_exit
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import StatusWriter, read_status, read_status_file, start_ticks
from iovirt_dist.topology import ENVIRONMENT_KEY
from iovirt_dist.topology.specs import STOPPING_ORDER, ProcessSpec

EXIT_FAILED: Final = 1
"""Stands for the exit status of a process that could not be started."""

GRACE_S: Final = 5.0
"""How long processes that are stopped together may take to end after SIGTERM before SIGKILL."""

WRITE_AGAIN_S: Final = 1.0
"""When the status file is written if the file system does not take it now."""

Report = Callable[[str, str], None]
"""Told of every change: process name, what happened."""


@dataclass(slots=True)
class Managed:
    """One process under supervision.

    Attributes:
        spec: How to start it.
        backoff: When to start it again.
        state: ``starting``, ``up``, ``backoff``, ``ended`` (for good) or ``stopped`` (by us).
        pid: Process number; 0 while there is none.
        start_ticks: Start time of that process, see `status.start_ticks`.
        since_ns: Wall clock (Unix time) of the last change of state.
        exit: How it ended last; empty if it never did.
        served: Whether it was killed, or crashed, while it served.
        stop: Set when it shall not run any more.
    """

    spec: ProcessSpec
    backoff: Backoff
    state: str = "starting"
    pid: int = 0
    start_ticks: int = 0
    since_ns: int = 0
    exit: str = ""
    served: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """What ``iovirt ps`` shows of it."""
        keys = ("state", "pid", "start_ticks", "since_ns", "exit")
        return {"kind": self.spec.kind, "restarts": self.backoff.restarts, **{key: getattr(self, key) for key in keys}}


class Supervisor:
    """Runs the processes of one topology.

    Args:
        run_dir: Created and locked by the caller.
        processes: In starting order.
        environ: The processes' environment.
        cwd: The processes' current folder.
        report: Told of every change.
        grace_s: Time to end in order, for those that are stopped together.
    """

    def __init__(
        self,
        run_dir: RunDir,
        processes: Sequence[ProcessSpec],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        report: Report,
        grace_s: float = GRACE_S,
    ) -> None:
        self._run_dir = run_dir
        self._environ = dict(environ)
        self._cwd = cwd
        self._report = report
        self._grace_s = grace_s
        self._managed = [Managed(spec, Backoff(spec.restart)) for spec in processes]
        self._told: dict[str, Any] = {}
        self._stopping = False
        self._changed = asyncio.Event()
        self._write_later: asyncio.TimerHandle | None = None
        self._status = StatusWriter(run_dir, SUPERVISOR, "supervisor", epoch=time.time_ns(), started_ns=time.time_ns())

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> bool:
        """Supervise until `stop` is set or nothing is left to run, then stop everything.

        Args:
            stop: Set it to stop the topology.
            hurry: Set it to kill instead of waiting for an orderly end.

        Returns:
            Whether it was stopped as asked; False if every process ended for good by itself.
        """
        for managed in self._managed:
            self._start(managed)
        asked = asyncio.create_task(stop.wait())
        try:
            while (running := self._running()) and not stop.is_set():
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait((*running, changed, asked), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            asked.cancel()
            self._stopping = True
            for managed in self._managed:
                managed.stop.set()
            for kinds in STOPPING_ORDER:
                await self._stop([m for m in self._managed if m.spec.kind in kinds], hurry or asyncio.Event())
            await asyncio.gather(*self._running(), return_exceptions=True)
            if self._write_later is not None:
                self._write_later.cancel()
            self._status.remove()
        return stop.is_set()

    def add(self, processes: Sequence[ProcessSpec]) -> None:
        """Supervise more processes; while everything is being stopped none is started."""
        for spec in processes:
            managed = Managed(spec, Backoff(spec.restart))
            self._managed.append(managed)
            if not self._stopping:
                self._start(managed)
        self._changed.set()

    async def remove(self, names: Collection[str]) -> None:
        """Stop some processes for good and forget them; returns when they are gone."""
        leaving = [managed for managed in self._managed if managed.spec.name in names]
        for managed in leaving:
            managed.stop.set()
        await self._stop(leaving, asyncio.Event())
        self._managed = [managed for managed in self._managed if managed not in leaving]

    def tell(self, **content: Any) -> None:
        """Have more in the status file, from the next write on."""
        self._told |= content
        if not self._stopping:
            self._write()

    def _start(self, managed: Managed) -> None:
        managed.task = asyncio.create_task(self._keep(managed), name=managed.spec.name)

    def _running(self) -> list[asyncio.Task[None]]:
        return [managed.task for managed in self._managed if managed.task and not managed.task.done()]

    def _note(self, managed: Managed, state: str, text: str) -> None:
        managed.state = state
        managed.since_ns = time.time_ns()
        self._write()
        self._report(managed.spec.name, text)

    def _write(self) -> None:
        """Write the status file; later, if the file system has no room now."""
        if self._write_later is not None:
            self._write_later.cancel()
            self._write_later = None
        rows = {entry.spec.name: entry.to_json() for entry in self._managed}
        source = self._environ.get(ENVIRONMENT_KEY, "")
        now_ns = time.time_ns()
        try:
            self._status.update(now_ns, force=True, state="running", processes=rows, topology=source, **self._told)
        except OSError:
            self._write_later = asyncio.get_running_loop().call_later(WRITE_AGAIN_S, self._write)

    async def _keep(self, managed: Managed) -> None:
        """Start one process, and again as its policy says."""
        while not managed.stop.is_set():
            started_ns = time.monotonic_ns()
            code = await self._run_once(managed)
            if managed.stop.is_set():
                self._note(managed, "stopped", f"stopped ({managed.exit})")
                return
            delay_ns = managed.backoff.ended(code, time.monotonic_ns() - started_ns, served=managed.served)
            if delay_ns is None:
                self._note(managed, "ended", f"ended ({managed.exit})")
                return
            self._note(managed, "backoff", f"ended ({managed.exit}); starts again in {delay_ns / 1e9:.1f} s")
            await _wait(managed.stop, delay_ns / 1e9)

    async def _run_once(self, managed: Managed) -> int:
        """Start a process and wait for its end; its exit status, negative for a signal.

        What the system refuses (EAGAIN, ENOMEM, ENOSPC for its log) is a failed start: it may be different soon.
        """
        try:
            process = await self._spawn(managed.spec)
        except OSError as error:
            managed.exit, managed.served = f"cannot start: {error.strerror or error}", False
            return EXIT_FAILED
        managed.pid = process.pid
        managed.start_ticks = start_ticks(process.pid) or 0
        self._note(managed, "up", f"started (pid {process.pid})")
        if managed.stop.is_set():  # asked to stop while the process was being made, so nobody signalled it
            _signal_group(managed.pid, signal.SIGTERM)
        code = await process.wait()
        _signal_group(managed.pid, signal.SIGKILL)  # what it may have started itself
        managed.served = self._told_status(managed)
        managed.pid = 0
        managed.exit = describe_exit(code)
        return code

    def _told_status(self, managed: Managed) -> bool:
        """Whether the process wrote a status file, which it does when it serves, and could not remove it."""
        status = read_status_file(self._run_dir.status(managed.spec.name))
        return status is not None and status.pid == managed.pid

    async def _spawn(self, spec: ProcessSpec) -> asyncio.subprocess.Process:
        """Start a process in a group of its own, its output in its log; OSError if the system refuses."""
        log = self._run_dir.open_log(spec.name)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *spec.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=self._cwd,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _stop(self, running: Sequence[Managed], hurry: asyncio.Event) -> None:
        """SIGTERM to processes, SIGKILL to those that are still there after the grace."""
        tasks = [managed.task for managed in running if managed.task and not managed.task.done()]
        if not tasks:
            return
        for managed in running:
            _signal_group(managed.pid, signal.SIGTERM)
        ended = asyncio.gather(*tasks, return_exceptions=True)
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait((ended, hurried), timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        why = "second interrupt" if hurry.is_set() else "does not end"
        while not ended.done():
            for managed in running:
                if managed.pid:
                    self._report(managed.spec.name, f"{why}: killed")
                    _signal_group(managed.pid, signal.SIGKILL)
            await asyncio.wait((ended,), timeout=self._grace_s)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Sleep until the event or the timeout, whichever comes first."""
    waiter = asyncio.create_task(event.wait())
    await asyncio.wait((waiter,), timeout=timeout_s)
    waiter.cancel()


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a process group, if there is one."""
    if pid:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # all that is left of the group is a zombie of another user
            pass


def refuse_orphans(run_dir: RunDir) -> None:
    """Make sure that no process of an earlier life still runs in this run directory.

    Raises:
        LocalError: One does; `where` is the run directory.
    """
    alive = [f"{status.name} (pid {status.pid})" for status in read_status(run_dir).values() if status.alive]
    if alive:
        fix = "stop them with 'iovirt down', or set another topology.run_dir"
        raise LocalError(f"processes still run in this run directory: {', '.join(alive)}", str(run_dir.path), fix)
