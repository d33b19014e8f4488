"""Runs of ``iovirt compare``: topologies started together, their guests let go one by one, and what they left.

Each guest waits in its program ``echo`` until somebody types ``exit``; what ``echo`` prints then marks the begin of the
job. So all processes of many runs may start at once, and a run that is measured has the machine for itself.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from iovirt_dist.cli.launch import start_detached
from iovirt_dist.cli.tail import last_words
from iovirt_dist.compare.counts import Counts, Statuses, counts_of
from iovirt_dist.compare.job import Job, disk_content
from iovirt_dist.compare.rows import GUEST, Row
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Topology, load_topology

START_S: Final = 60.0
JOB_S: Final = 600.0
SETTLE_S: Final = 10.0
DISK_BYTES: Final = 1 << 20
"""Least size of a disk."""

_READY: Final = b"echo: type lines"
_BEGUN: Final = b"echo: done"
_HASHED: Final = b"job: read "
_ENDED: Final = b"init: all done"
_SHA256: Final = re.compile(r"^job: result sha256=([0-9a-f]{64})", re.MULTILINE)
_DRIVER: Final = re.compile(r"^vda: (?:(no)|(\w+)) disk", re.MULTILINE)
_POLL_S: Final = 0.001
_SLOW_POLL_S: Final = 0.02


class Times(NamedTuple):
    """When lines of the guest's terminal reached the host, monotonic seconds."""

    begun: float
    hashed: float


@dataclass(slots=True)
class Run:
    """One run of one row.

    Attributes:
        row: Which.
        job: What its guest does.
        base: Folder of everything that belongs to it.
        traced: Whether its trace points are wanted.
        topology: What runs.
        final: What its processes said of themselves when `settled` was done.
        before: What they had counted when the job began.
    """

    row: Row
    job: Job
    base: Path
    traced: bool = False
    topology: Topology = field(init=False)
    final: Statuses = field(init=False, default_factory=dict)
    before: Counts = field(init=False, default_factory=Counts)
    _since_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.base.mkdir(mode=0o700)
        (self.base / "disk.img").write_bytes(disk_content(self.job).ljust(DISK_BYTES, b"\0"))
        file = self.base / "topology.toml"
        file.write_text(self.row.topology_text(self.job, self.base), "utf-8")
        self.topology = load_topology(file)

    @property
    def run_dir(self) -> RunDir:
        """Where its sockets, logs and status files are."""
        return RunDir(self.topology.run_dir)

    def start(self) -> None:
        """Start its processes; tracing is on before the hypervisor's interpreter has started."""
        start_detached(self.topology, die_with_parent=True)
        if self.traced:
            self.run_dir.trace_switch.touch()

    def wait_ready(self) -> None:
        """Wait until the guest's program waits for a line.

        Raises:
            LocalError: It does not get so far.
        """
        self._wait_for(_READY, time.monotonic() + START_S, _SLOW_POLL_S)
        self._since_ns = time.time_ns()

    def release(self) -> None:
        """Let the job run."""
        self._type(b"exit\r")

    def finish(self) -> Times:
        """Wait until all programs have ended.

        Raises:
            LocalError: They do not.
        """
        deadline = time.monotonic() + JOB_S
        begun = self._wait_for(_BEGUN, deadline, _POLL_S)
        hashed = self._wait_for(_HASHED, deadline, _POLL_S)
        self._wait_for(_ENDED, deadline, _SLOW_POLL_S)
        self._since_ns = time.time_ns()
        return Times(begun, hashed)

    def settled(self) -> Counts:
        """Wait until nobody counts and both ends of each session tell the same, and return what they counted.

        What was said before the guest got ready, or its job ended, does not hold any more.

        Raises:
            LocalError: They do not agree.
        """
        deadline = time.monotonic() + SETTLE_S
        while True:
            self.final = self.statuses(self._since_ns)
            if (counts := counts_of(self.final)) is not None:
                return counts
            if time.monotonic() > deadline:
                raise LocalError("the processes' counts do not agree", f"row {self.row.name}")
            time.sleep(_SLOW_POLL_S)

    def statuses(self, since_ns: int = 0) -> Statuses:
        """What the processes have said of themselves, wall clock `since_ns` or later."""
        statuses = read_status(self.run_dir)
        return {name: status.content for name, status in statuses.items() if status.updated_ns >= since_ns}

    def console(self) -> str:
        """Everything that the guest's terminal showed."""
        return self._shown().decode("utf-8", "replace").replace("\r", "")

    def sha256(self) -> str:
        """The guest's checksum, the last one that it printed; empty if none."""
        found = _SHA256.findall(self.console())
        return found[-1] if found else ""

    def guest_driver(self) -> str:
        """What the guest's kernel said of its disk driver at boot, one word."""
        found = _DRIVER.search(self.console())
        return "unknown" if found is None else found[2] or "none"

    def points(self, process: str) -> Iterator[dict[str, Any]]:
        """Trace points of a process, once it has ended."""
        path = self.run_dir.trace_file(process)
        for part in (path.with_name(f"{path.name}.1"), path):
            if part.is_file():
                yield from map(json.loads, part.read_text("utf-8").splitlines())

    def image(self) -> bytes:
        """The part of the disk's image that the job reads."""
        with (self.base / "disk.img").open("rb") as file:
            return file.read(self.job.bytes)

    def _shown(self) -> bytes:
        try:
            return self.run_dir.console_log(GUEST).read_bytes()
        except FileNotFoundError:
            return b""

    def _wait_for(self, text: bytes, deadline: float, poll_s: float) -> float:
        """Return when the terminal showed a text, monotonic seconds, to within a poll."""
        looked = 0.0
        while text not in self._shown():
            now = time.monotonic()
            if now > deadline:
                raise LocalError(f"the guest did not print '{text.decode()}'", f"row {self.row.name}", self._tail())
            if now > looked + 1:
                looked = now
                self._check_alive()
            time.sleep(poll_s)
        return time.monotonic()

    def _type(self, data: bytes) -> None:
        terminal = os.open(self.run_dir.console_tty(GUEST), os.O_WRONLY | os.O_NOCTTY)
        try:
            os.write(terminal, data)
        finally:
            os.close(terminal)

    def _check_alive(self) -> None:
        supervisor = read_status_file(self.run_dir.status(SUPERVISOR))
        rows = supervisor.content.get("processes", {}) if supervisor is not None else {}
        for name, row in rows.items():
            if row.get("state") == "ended" or row.get("restarts", 0):
                words = last_words(self.run_dir, name) or f"{name} failed without a word"
                raise LocalError(words, f"row {self.row.name}")

    def _tail(self) -> str:
        lines = self.console().split("\n")[-4:]
        return f"it printed: {' / '.join(line.strip() for line in lines if line.strip()) or 'nothing'}"


@contextmanager
def together(runs: Sequence[Run]) -> Iterator[None]:
    """Start runs at once and wait until all their guests are ready and rest; end them behind the block.

    Args:
        runs: Different ones; processes of all of them exist at the same time.

    Raises:
        LocalError: A run does not get ready.
    """
    try:
        for run in runs:
            run.start()
        for run in runs:
            run.wait_ready()
        for run in runs:
            run.before = run.settled()
        yield
    finally:
        with ThreadPoolExecutor(max_workers=len(runs)) as pool:
            list(pool.map(lambda run: take_down(run.run_dir), runs))
