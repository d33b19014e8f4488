"""Keeps a process's status file true while the process runs, and its trace where it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import ScalingFollower
from iovirt_dist.runtime.status import MIN_INTERVAL_NS, StatusWriter
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.topology.specs import AnySpec, Topology

_PAGE_BYTES: Final = resource.getpagesize()


def usage() -> dict[str, int]:
    """Return the processor time (user and system) that this process has had, and its resident memory.

    Source: proc(5), /proc/PID/statm, second field, in pages.
    """
    resident = int(Path("/proc/self/statm").read_bytes().split()[1])
    return {"cpu_ns": time.process_time_ns(), "rss_bytes": resident * _PAGE_BYTES}


class Telemetry:
    """An async context that writes the status file twice a second and removes it at the end.

    What is told is gathered on the loop and written by a thread: a file system that is busy holds up a rename for
    hundreds of milliseconds, and with it would hold up all I/O of the process.

    Args:
        topology: Names the run directory, which is created if absent.
        spec: The process.
        epoch: Which life of it this is.
        status: Gathers ``state`` and whatever else is worth telling, as JSON values; cheap.
        trace: Its trace points.
        follower: Follows `iovirt scale`; looked at before each write, so that the file tells what is in force.
    """

    def __init__(
        self,
        topology: Topology,
        spec: AnySpec,
        epoch: int,
        status: Callable[[], dict[str, Any]],
        trace: TraceLog | None = None,
        follower: ScalingFollower | None = None,
    ) -> None:
        run_dir = RunDir(topology.run_dir)
        run_dir.create()
        self._status = status
        self._writer = StatusWriter(run_dir, spec.name, spec.kind, epoch, time.time_ns())
        self._trace = trace
        self._follower = follower
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def __aenter__(self) -> None:
        self._writer.put(self._gather())
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._ended.set()
        await self._task  # which may be writing
        if self._trace is not None:
            self._trace.poll()
        with contextlib.suppress(OSError):
            self._writer.remove()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), MIN_INTERVAL_NS / 1e9)
            if self._ended.is_set():
                return
            with contextlib.suppress(OSError):  # a full file system may have room the next time
                await loop.run_in_executor(None, self._writer.put, self._gather())

    def _gather(self) -> bytes:
        """Follow what may have changed, and return what the file is to say."""
        followed: dict[str, Any] = {}
        if self._follower is not None:
            self._follower.poll()
            followed = self._follower.status()
        told = self._writer.encode(time.time_ns(), **usage(), **followed, **self._status())
        if self._trace is not None:
            self._trace.poll()
        return told
