"""A topology of real processes under a test: up, broken on purpose, and taken down with a verdict."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.testing.console import ConsoleHandle
from iovirt_dist.testing.documents import Source, write_topology
from iovirt_dist.testing.processes import ProcessHandle, eventually
from iovirt_dist.topology import Topology
from iovirt_dist.topology.specs import CONTROLLER_KINDS, STOPPING_ORDER
from iovirt_dist.topology.vm_specs import VMM_SUFFIX

GRACE_S = 20.0
"""Time that each process has for an orderly end: generous, because a test machine may be busy."""

_TRACEBACK = "Traceback (most recent call last)"
_NOT_OURS = ("HONCHO_PROCESS_NAME", "IOVIRT_TOPOLOGY", "IOVIRT_HOST")


class LiveTopology:
    """Processes, consoles and files of one topology.

    Args:
        topology: Written for this test by `write_topology`, or one host's part of that; its run directory is its own.
        enter: Command in front of each process's own, which replaces itself with it: ``ip netns exec NAME``.

    Attributes:
        topology: What the file says.
        run_dir: Sockets, logs, terminals and status files.
        tracebacks_expected: Set it if the test makes a process print a traceback on purpose.
    """

    def __init__(self, topology: Topology, enter: Sequence[str] = ()) -> None:
        self.topology = topology
        self.run_dir = RunDir(topology.run_dir)
        self.tracebacks_expected = False
        self.run_dir.create()
        environ = {key: value for key, value in os.environ.items() if key not in _NOT_OURS}
        environ |= {**topology.environment(), "IOVIRT_SUPERVISED": "1", "PYTHONUNBUFFERED": "1"}
        self._processes = {
            str(spec.name): ProcessHandle(spec, self.run_dir, environ, enter) for spec in topology.processes()
        }
        self._consoles: dict[str, ConsoleHandle] = {}

    # --- parts

    @property
    def processes(self) -> list[ProcessHandle]:
        """All processes in starting order."""
        return list(self._processes.values())

    def process(self, name: str) -> ProcessHandle:
        """Return any process by name; KeyError with the known names if there is none."""
        if name not in self._processes:
            raise KeyError(f"no process {name!r}; there are {', '.join(self._processes)}")
        return self._processes[name]

    def guest(self, name: str = "") -> ProcessHandle:
        """Return a guest; without a name the first one."""
        return self._of_kind(("guest",), name)

    def vmm(self, name: str = "") -> ProcessHandle:
        """Return the process of a guest's VMM by its own name; without a name the first one."""
        return self._of_kind(("vmm",), name)

    def hypervisor(self, name: str = "") -> ProcessHandle:
        """Return a hypervisor; without a name the first one."""
        return self._of_kind(("hypervisor",), name)

    def controller(self, name: str) -> ProcessHandle:
        """Return a controller of any kind that has a process of its own."""
        return self._of_kind(CONTROLLER_KINDS, name)

    def driver_domain(self, name: str = "") -> ProcessHandle:
        """Return a driver domain; without a name the first one."""
        return self._of_kind(("driver_domain",), name)

    def console(self, guest: str = "") -> ConsoleHandle:
        """Return a terminal by its name or its guest's, always the same object; without a name the first guest's."""
        name = self.topology.terminal(guest or self.guest().name).terminal
        if name not in self._consoles:
            self._consoles[name] = ConsoleHandle(name, self.run_dir, self.explain)
        return self._consoles[name]

    def _of_kind(self, kinds: Sequence[str], name: str) -> ProcessHandle:
        known = [process for process in self.processes if process.kind in kinds and name in ("", process.name)]
        if not known:
            raise KeyError(f"no {' or '.join(kinds)} {name!r} in this topology")
        return known[0]

    # --- up and down

    async def start(self, *names: str) -> None:
        """Start processes, all that do not run without names, and wait until each is up."""
        wanted = [self.process(name) for name in names] or [p for p in self.processes if not p.running]
        for process in wanted:
            process.start()
        for process in wanted:
            await process.wait_running()

    async def stop(self) -> list[str]:
        """Stop everything in order, guests first.

        Returns:
            What is wrong: who had to be killed, ended badly or printed a traceback, and what was left behind.
        """
        problems = [f"{p.name} ended by itself ({p.returncode})" for p in self.processes if _failed(p)]
        for kinds in STOPPING_ORDER:
            ending = [process for process in self.processes if process.kind in kinds and process.running]
            for process in ending:
                process.terminate()
            problems += [problem for process in ending if (problem := await _end(process))]
        problems += self._leftovers()
        if not self.tracebacks_expected:
            problems += [f"{p.name} printed a traceback" for p in self.processes if _TRACEBACK in p.log]
        return problems

    def explain(self) -> str:
        """Return the end of each process's log."""
        return "\n".join(process.tail() for process in self.processes if process.started)

    def _leftovers(self) -> list[str]:
        """Files that must not outlive the topology, except those of processes that the test killed."""
        killed = {process.name for process in self.processes if process.killed}
        terminals = any(process.killed and process.kind in ("console", "driver_domain") for process in self.processes)
        left: list[str] = []
        for path in self.run_dir.leftovers():
            owner = path.name.removesuffix(".lock").removesuffix(".json").removesuffix(".tmp")
            guest = owner.split(".")[0]
            dead = not killed.isdisjoint((owner, guest, f"{guest}{VMM_SUFFIX}"))
            excused = dead or (terminals and path.suffix == ".tty")
            if not excused:
                left.append(f"{path.relative_to(self.run_dir.path)} was left behind")
        return left


class TopologyFactory:
    """Starts topologies for one test; what the fixture ``iovirt`` gives.

    Attributes:
        topologies: All that were started.
    """

    def __init__(self) -> None:
        self.topologies: list[LiveTopology] = []
        self._folders: list[Path] = []
        self._reports: dict[str, str] = {}

    def prepare(self, source: Source = None, **overrides: Any) -> LiveTopology:
        """Write a topology without starting anything; see `up`."""
        folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
        self._folders.append(folder)
        live = LiveTopology(write_topology(source, folder, overrides))
        self.topologies.append(live)
        return live

    async def up(self, source: Source = None, **overrides: Any) -> LiveTopology:
        """Start a topology in a run directory of its own, and wait until every process is up.

        Args:
            source: TOML text, a `Path`, a dictionary of tables, or None for the built-in topology.
            overrides: Tables that are merged into it, e.g. ``topology={"lease": "500ms"}``.

        Raises:
            AssertionError: A process does not come up; the text shows its log.
            ConfigError: The topology is wrong.
        """
        live = self.prepare(source, **overrides)
        await live.start()
        return live

    async def down(self) -> list[str]:
        """Stop everything and remove the run directories; returns what is wrong, as `LiveTopology.stop` does."""
        problems: list[str] = []
        for live in reversed(self.topologies):
            problems += await live.stop()
        self._reports = self.reports()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()
        return problems

    def reports(self) -> dict[str, str]:
        """Return the ends of all logs by process, also when everything is down already."""
        if self.topologies and not self._folders:
            return self._reports
        return {
            process.name: process.tail() for live in self.topologies for process in live.processes if process.started
        }


def _failed(process: ProcessHandle) -> bool:
    ended = process.started and not process.running
    return ended and not process.killed and process.returncode != process.expected_exit


async def _end(process: ProcessHandle) -> str:
    """Wait for a process that was told to end; returns what is wrong with its end."""
    try:
        await eventually(lambda: not process.running, GRACE_S, lambda: "")
    except AssertionError:
        process.kill()
        await asyncio.sleep(0)
        return f"{process.name} had to be killed"
    return f"{process.name} ended with exit status {process.returncode}" if _failed(process) else ""
