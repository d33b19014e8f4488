"""Keeps a host's guests as many as `iovirt scale` has said, beside the supervisor that keeps them running.

Guests that are not wanted any more are stopped first. New ones are started once the host's other processes serve them,
so that nobody is refused at the door; a process that does not follow in time is not waited for, as it does when it can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import ScalingFollower
from iovirt_dist.runtime.status import read_status
from iovirt_dist.runtime.supervise import Report, Supervisor
from iovirt_dist.topology.specs import Topology

POLL_S: Final = 0.1

FOLLOW_S: Final = 5.0
"""How long the host's other processes may take to follow; they look twice a second."""


class HostKeeper:
    """One host's guests.

    Args:
        topology: As it was when the supervisor started.
        supervisor: Runs the host's processes.
        report: Told of every change.
    """

    def __init__(self, topology: Topology, supervisor: Supervisor, report: Report) -> None:
        self._wanted = topology
        self._supervisor = supervisor
        self._report = report
        self._run_dir = RunDir(topology.run_dir)
        self._follower = ScalingFollower(topology, self._note)

    async def run(self) -> None:
        """Follow until cancelled. The supervisor's status file tells the revision once it is in force."""
        self._supervisor.tell(digest=self._wanted.digest, **self._follower.status())
        while True:
            before, problem = self._follower.topology, self._follower.problem
            if self._follower.poll():
                await self._scale(before, self._wanted)
                self._supervisor.tell(**self._follower.status(), scale_problem="")
            elif self._follower.problem != problem:
                self._supervisor.tell(scale_problem=self._follower.problem)
            await asyncio.sleep(POLL_S)

    def _note(self, topology: Topology) -> None:
        for error in topology.missing_images():
            raise error
        self._wanted = topology

    async def _scale(self, before: Topology, after: Topology) -> None:
        old, new = _scaled(before), _scaled(after)
        if old - new:
            await self._supervisor.remove(old - new)
            for name in old - new:
                self._forget(name)
        await self._followed(after)
        if added := [process for process in after.processes() if process.name in new - old]:
            self._supervisor.add(added)

    def _forget(self, name: str) -> None:
        """Remove what a guest that had to be killed has left behind."""
        self._report(name, "removed")
        self._run_dir.status(name).unlink(missing_ok=True)
        self._run_dir.socket(f"{name}.lock").unlink(missing_ok=True)

    async def _followed(self, topology: Topology) -> None:
        """Wait until the host's controllers and hypervisors serve the new guests and have let go of the others."""
        await _until(lambda: not lagging(topology, self._run_dir), FOLLOW_S)
        for name in lagging(topology, self._run_dir):
            self._report(name, f"has not followed the topology to revision {topology.revision} yet")


def _scaled(topology: Topology) -> set[str]:
    """Names of what there are more or fewer of: guests and their VMMs."""
    return {*topology.names("guest"), *topology.names("vmm")}


def lagging(topology: Topology, run_dir: RunDir) -> list[str]:
    """Name the host's controllers, driver domains and hypervisors that run and serve an earlier revision."""
    serving = {name: status for name, status in read_status(run_dir).items() if status.kind not in ("guest", "vmm")}
    return [
        name
        for name, status in serving.items()
        if status.alive and status.content.get("revision", 0) < topology.revision
    ]


async def _until(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
