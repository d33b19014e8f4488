"""Two hosts of a topology on one machine, by loopback addresses, brought up and down with the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import ProcessStatus, read_status
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.testing.documents import free_port
from iovirt_dist.topology.specs import host_folder

START_S = 30.0
"""For processes to start, or to follow: generous, because a test machine may be busy."""

TEMPLATE = """
[topology]
lease = "1s"
run_dir = "."
[host.a]
address = "127.0.0.1"
control_port = {ports[0]}
memory = "96MiB"
[host.b]
address = "127.0.0.2"
control_port = {ports[1]}
memory = "64MiB"
[hypervisor.hv-a]
host = "a"
[hypervisor.hv-b]
host = "b"
[controller.disk0]
kind = "block"
host = "a"
endpoint = "tcp://127.0.0.1:{ports[2]}"
image = "disk.img"
size = "1MiB"
extents.base = {{ size = "1MiB", read_only = true }}
[controller.tty0]
kind = "console"
host = "a"
endpoint = "tcp://127.0.0.1:{ports[3]}"
[guest.load]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = ["hv-a", "hv-b"]
count = 2
memory = "32MiB"
parameters = {{ devices = ["disk", "console"], seconds = 600.0, depth = 2, blocks = 16 }}
devices = {{ disk = "disk0/base", overlay = true, virtio_console = "tty0" }}
"""
"""Guests have room for three on host a and for two on host b; each writes to an overlay and reads it again."""


class TwoHosts:
    """A folder with a topology file, and what was started from it.

    Attributes:
        folder: Short, as sockets are in it.
        file: The topology.
    """

    def __init__(self, template: str = TEMPLATE) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iv", dir="/tmp"))
        self.file = self.folder / "t.toml"
        self.file.write_text(template.format(ports=[free_port() for _ in range(4)]))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}
        self.environ = inherited | {"COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[str]] = []

    def iovirt(self, *arguments: str, timeout_s: float = START_S) -> subprocess.CompletedProcess[str]:
        """Run a command about this topology to its end."""
        return subprocess.run(
            self._command(*arguments),
            check=False,
            env=self.environ,
            cwd=self.folder,
            timeout=timeout_s,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )

    def answer(self, *arguments: str) -> dict[str, Any]:
        """Run a command that must succeed; returns its JSON object."""
        done = self.iovirt(*arguments, "--json")
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.logs()}"
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and leave it running until `close`; its output is dropped."""
        process = subprocess.Popen(
            self._command(*arguments),
            env=self.environ,
            cwd=self.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    def up(self, *hosts: str) -> None:
        """Bring hosts up in the background, at the same time."""
        starting = [self.start("up", "--host", host, "-d") for host in hosts]
        codes = [process.wait(START_S) for process in starting]
        assert codes == [0] * len(hosts), f"{hosts} ended with {codes}\n{self.logs()}"

    def run_dir(self, host: str = "") -> RunDir:
        """A host's run directory."""
        return RunDir(host_folder(self.folder, host))

    def status(self, host: str = "") -> dict[str, ProcessStatus]:
        """What the living processes of a host say."""
        return {name: status for name, status in read_status(self.run_dir(host)).items() if status.alive}

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: It does not.
        """
        deadline = time.monotonic() + START_S
        while not holds():
            assert time.monotonic() < deadline, f"not {what}\n{self.logs()}"
            time.sleep(0.02)

    def verified(self, host: str, *guests: str) -> bool:
        """Whether guests of a host have read back, rightly, what they wrote, without an error."""
        statuses = self.status(host)
        found = [statuses[guest].content.get("results", {}) for guest in guests if guest in statuses]
        return len(found) == len(guests) and all(
            result.get("checked", 0) > 0 and result.get("wrong") == 0 and result.get("failed") == 0 for result in found
        )

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {path}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("**/log/*.log")))

    def close(self) -> None:
        """Take everything down; what is then left in the folder goes, too."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(START_S)
        for host in ("", "a", "b"):
            take_down(self.run_dir(host))
        shutil.rmtree(self.folder)

    def _command(self, *arguments: str) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-P", "-m", "iovirt_dist.cli.main", command, "--file", str(self.file), *rest]
