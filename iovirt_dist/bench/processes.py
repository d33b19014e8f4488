"""Processes of a temporary topology, and bare ones beside them; nothing of them stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from iovirt_dist.errors import LocalError
from iovirt_dist.runtime import child
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status
from iovirt_dist.topology import Topology, load_topology

READY_WITHIN_S = 20.0
END_WITHIN_S = 5.0
LOOK_INTERVAL_S = 0.002


class Processes:
    """A topology in a temporary folder; a context that ends what was started and removes the folder.

    Args:
        text: The topology's TOML; relative paths in it are relative to the folder.
    """

    def __init__(self, text: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iovirt-bench-"))
        file = self.folder / "topology.toml"
        file.write_text(text, "utf-8")
        self.topology: Topology = load_topology(file)
        self.run_dir = RunDir(self.topology.run_dir)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        self.run_dir.create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        guests = [name for name in self._running if name in self.topology.guests]
        self.stop(*guests)
        self.stop(*reversed(list(self._running)))
        shutil.rmtree(self.folder, ignore_errors=True)

    def launch(self, *names: str) -> None:
        """Start processes of the topology and go on at once."""
        commands = {str(process.name): process.argv for process in self.topology.processes()}
        for name in names:
            self._spawn(name, commands[name])

    def start(self, *names: str) -> None:
        """Start processes of the topology and wait until they report.

        Raises:
            LocalError: One of them ended, or is not ready in time.
        """
        self.launch(*names)
        self.wait_for(lambda: all(self._ready(name) for name in names), f"{', '.join(names)} to start", READY_WITHIN_S)

    def start_bare(self, name: str, *arguments: str) -> None:
        """Start `iovirt_dist.bench.bare` with these arguments."""
        self._spawn(name, (sys.executable, "-P", "-m", "iovirt_dist.bench.bare", *arguments))

    def start_other(self, name: str, *command: str) -> None:
        """Start somebody else's program; what it prints is its log. It has nothing to read."""
        self._spawn(name, command)

    def endpoint(self, name: str) -> str:
        """An ipc address in the folder."""
        return f"ipc://{self.folder / name}"

    def stop(self, *names: str) -> None:
        """End processes, all at once, by force if they take too long."""
        processes = [self._running.pop(name) for name in names]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + END_WITHIN_S
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        """What a process has logged, nothing if it never ran."""
        path = self.run_dir.log(name)
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait_for(self, done: Callable[[], bool], what: str, within_s: float, every_s: float = LOOK_INTERVAL_S) -> None:
        """Wait until `done`, looking often, or as often as said.

        Raises:
            LocalError: A process ended meanwhile, or the time is over.
        """
        deadline = time.monotonic() + within_s
        while not done():
            for name, process in self._running.items():
                if process.poll() is not None:
                    last = self.log(name).strip().rpartition("\n")[2]
                    raise LocalError(f"process ended while waiting for {what}", name, last)
            if time.monotonic() > deadline:
                raise LocalError(f"waited {within_s:.0f} s for {what}")
            time.sleep(every_s)

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        wrapper = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
        environ = os.environ | self.topology.environment() | {"PYTHONUNBUFFERED": "1"}
        log = self.run_dir.open_log(name)
        try:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own processes
                [*wrapper, *command], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        finally:
            os.close(log)

    def _ready(self, name: str) -> bool:
        status = read_status(self.run_dir).get(name)
        return status is not None and status.alive
