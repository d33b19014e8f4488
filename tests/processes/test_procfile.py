"""`honcho start` on the Procfile as it stands: the built-in topology, and one with more guests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status
from iovirt_dist.testing.console import ConsoleHandle
from iovirt_dist.testing.live import TopologyFactory
from iovirt_dist.testing.processes import eventually
from tests.processes.two_hosts import TwoHosts

PROCFILE = Path(__file__).parents[2] / "Procfile"
START_S = 20.0
STOP_S = 6.0
"""honcho kills after five seconds; a service that needed that would leave its status file behind."""


class Honcho:
    """A running honcho.

    Args:
        folder: Current folder of the processes; gets the output, too.
        environ: Settings over the test's own environment.
        arguments: For ``honcho start``.
    """

    def __init__(self, folder: Path, environ: dict[str, str], *arguments: str) -> None:
        self.output = folder / "honcho.log"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "honcho", "start", "-f", str(PROCFILE), *arguments],
                cwd=folder,
                env={**inherited, "PATH": path, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def explain(self) -> str:
        """What it and its processes printed."""
        return self.output.read_text("utf-8", "replace")

    def interrupt(self) -> None:
        """Ctrl-C, and wait for the end.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        self.process.send_signal(signal.SIGINT)
        self.process.wait(STOP_S)


@contextmanager
def _running(honcho: Honcho) -> Iterator[Honcho]:
    """End it with the test, whatever happens."""
    with honcho.process:
        try:
            yield honcho
        finally:
            if honcho.process.poll() is None:
                honcho.process.terminate()


async def _all_up(honcho: Honcho, run_dir: RunDir, names: set[str]) -> dict[str, ProcessStatus]:
    await eventually(lambda: read_status(run_dir).keys() >= names, START_S, honcho.explain)
    return read_status(run_dir)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a path short enough for sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


async def test_procfile_runs_the_built_in_topology_and_ctrl_c_leaves_nothing(folder: Path) -> None:
    """In an empty folder the bundled guest OS does its job; afterwards no process, socket, lock or status is left."""
    run_dir = RunDir(folder / ".iovirt")

    with _running(Honcho(folder, {})) as honcho:
        started = await _all_up(honcho, run_dir, {"disk0", "tty0", "hv0", "guest"})
        await ConsoleHandle("guest", run_dir, honcho.explain).expect(r"init: all done", START_S)
        honcho.interrupt()

    assert [status.name for status in started.values() if status.alive] == []
    assert run_dir.leftovers() == []
    assert "Traceback" not in honcho.explain()


async def test_procfile_concurrency_counts_through_the_guests_of_a_topology(
    iovirt: TopologyFactory, folder: Path, two_guests: dict[str, Any]
) -> None:
    """``-c guest=2`` starts alice and bob; each has its own terminal."""
    topology = iovirt.prepare(two_guests)
    environ = {"IOVIRT_TOPOLOGY": str(topology.topology.source)}

    with _running(Honcho(folder, environ, "-c", "guest=2")) as honcho:
        started = await _all_up(honcho, topology.run_dir, {"alice", "bob"})
        for name in ("alice", "bob"):
            console = ConsoleHandle(name, topology.run_dir, honcho.explain)
            await console.expect(r"type lines", START_S)
            console.send_line(f"I am {name}")
            await console.expect(rf"^echo: I am {name}$", START_S)
        honcho.interrupt()

    assert [status.name for status in started.values() if status.alive] == []
    assert topology.run_dir.leftovers() == []


async def test_procfile_with_an_env_file_runs_a_hosts_part(folder: Path) -> None:
    """``.env`` names topology and host; numbers count that host's processes, the others are not here."""
    hosts = TwoHosts()
    (folder / "b.env").write_text(f"IOVIRT_TOPOLOGY={hosts.file}\nIOVIRT_HOST=b\n")
    try:
        hosts.up("a")
        with _running(Honcho(folder, {}, "-e", str(folder / "b.env"))) as honcho:
            await eventually(lambda: hosts.verified("b", "load-2"), START_S, honcho.explain)
            here = set(hosts.status("b"))
            honcho.interrupt()
    finally:
        hosts.close()

    assert here == {"hv-b", "load-2"}
    assert "Traceback" not in honcho.explain()
