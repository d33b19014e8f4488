"""``iovirt compare --drivers``: the same guests and load with drivers placed natively and in a driver domain.

Both topologies run side by side, and loads take turns, so that each has the machine for itself and whatever else the
machine does meets both. Guests are started one by one. What a guest's messages are is what it counts beyond a guest
that only makes its disk ready. At last a guest writes and checks, and the process that has the disk's driver is killed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from iovirt_dist.cli.compare_drivers_table import print_placements
from iovirt_dist.cli.launch import start_detached
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail, print_json
from iovirt_dist.cli.progress import Say, progress
from iovirt_dist.cli.tail import last_words
from iovirt_dist.cli.terminal import exit_on_signals
from iovirt_dist.compare.placement import (
    DEVICES,
    DISK,
    HOST_DRIVERS,
    HYPERVISOR,
    IDLE,
    LOADS,
    PLACEMENTS,
    VERIFIER,
    KillResult,
    Load,
    LoadResult,
    PlacementResult,
    placement_json,
    placement_topology,
    written_ranges,
)
from iovirt_dist.compare.placement_counts import (
    Content,
    Passed,
    agreed,
    classes_of,
    code_of,
    devices_of,
    passed,
    servers_of,
    since,
)
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Topology, load_topology
from iovirt_dist.topology.host_specs import NATIVE

LOAD_S: Final = 0.7
"""How long each load takes."""
PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.02
_GOES_ON: Final = 200
"""Requests that the guest makes before the kill and after it."""


def run_compare_drivers(*, as_json: bool) -> int:
    """Run the comparison in a temporary folder, of which nothing stays.

    Args:
        as_json: Print one object instead of a table.

    Returns:
        Exit status 0 only if nothing was lost or failed, and both disks hold the same.

    Raises:
        LocalError: Processes cannot be started, or do not do what they should.
    """
    with exit_on_signals(), progress(2 + len(LOADS)) as say:
        results = compare_drivers(LOAD_S, say)
    if as_json:
        print_json(placement_json(results))
    else:
        print_placements(results)
    problems = [(name, problem) for name, result in results.items() for problem in result.problems]
    for name, problem in problems:
        fail(f"compare --drivers: {name}: {problem}")
    return EXIT_FAILED if problems else EXIT_DONE


def compare_drivers(seconds: float, say: Say) -> dict[str, PlacementResult]:
    """Run all loads in both placements.

    Args:
        seconds: How long each load takes.
        say: Told what is done next.

    Returns:
        By placement.

    Raises:
        LocalError: Processes cannot be started, or do not do what they should.
    """
    base = Path(tempfile.mkdtemp(prefix="iovirt-cmp-"))
    runs: dict[str, _Placement] = {}
    try:
        say("starting hypervisors, devices and a driver domain")
        for name, driver in PLACEMENTS.items():
            runs[name] = _Placement(base / name, driver, seconds)
        for run in runs.values():
            run.start()
        for run in runs.values():
            run.start_idle()
        for run in runs.values():
            run.count_idle()
        for load in LOADS:
            say(f"{load.request}s at depth {load.depth}")
            for run in runs.values():
                run.load(load)
        say("killing the process that has the disk's driver")
        for run in runs.values():
            run.kill()
        results = {name: run.result() for name, run in runs.items()}
    finally:
        for run in runs.values():
            run.close()
        shutil.rmtree(base, ignore_errors=True)
    return _compared(results)


def _compared(results: Mapping[str, PlacementResult]) -> dict[str, PlacementResult]:
    """Add what only both together tell: their disks must hold the same."""
    native, *others = results.values()
    different = any(other.sha256 != native.sha256 for other in others)
    added = ("the disks of the two placements differ",) if different else ()
    return {name: replace(result, problems=(*result.problems, *added)) for name, result in results.items()}


@dataclass(slots=True)
class _Placement:
    """One placement and its processes.

    Attributes:
        base: Folder of everything that belongs to it; made here.
        driver: Value of the controllers' ``driver``.
        seconds: How long each load takes.
    """

    base: Path
    driver: str
    seconds: float
    topology: Topology = field(init=False)
    _loads: dict[str, LoadResult] = field(init=False, default_factory=dict)
    _before: Passed = field(init=False, default_factory=lambda: Passed({}, {}))
    _idle: Passed = field(init=False, default_factory=lambda: Passed({}, {}))
    _verified: Passed = field(init=False, default_factory=lambda: Passed({}, {}))
    _statuses: dict[str, Content] = field(init=False, default_factory=dict)
    _kill: KillResult | None = field(init=False, default=None)
    _guest: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.base.mkdir(mode=0o700)
        file = self.base / "topology.toml"
        file.write_text(placement_topology(self.driver, self.base, self.seconds), "utf-8")
        self.topology = load_topology(file)

    @property
    def run_dir(self) -> RunDir:
        """Where its sockets, logs and status files are."""
        return RunDir(self.topology.run_dir)

    def start(self) -> None:
        """Start everything but the guests.

        Raises:
            LocalError: It does not start.
        """
        start_detached(replace(self.topology, guests={}), die_with_parent=True)
        names = {process.name for process in self.topology.processes() if process.kind != "guest"}
        self._until(lambda: names <= read_status(self.run_dir).keys(), "the processes do not start")

    def start_idle(self) -> None:
        """Start a guest that only makes its disk ready."""
        self._start_guest(IDLE)

    def count_idle(self) -> None:
        """What that guest counts."""
        self._idle = self._finish_guest(IDLE)[1]

    def load(self, load: Load) -> None:
        """Run one load."""
        self._start_guest(load.name)
        found, spent = self._finish_guest(load.name)
        requests = found["requests"] or 1
        own = {name: count - self._idle.messages.get(_as_idle(name, load), 0) for name, count in spent.messages.items()}
        hypervisor_ns = spent.cpu_ns[HYPERVISOR]
        devices_ns = sum(spent.cpu_ns.values()) - spent.cpu_ns[load.name] - hypervisor_ns
        cpu_ns = {"hypervisor": hypervisor_ns, "devices": devices_ns}
        self._loads[load.name] = LoadResult(
            requests=found["requests"],
            iops=found["iops"],
            p50_us=found["latency_us"]["p50"],
            p99_us=found["latency_us"]["p99"],
            failed=found["failed"],
            messages=round(sum(own.values()) / 2 / requests, 2),
            processes=_active(own),
            cpu_us={part: round(spent_ns / 1e3 / requests, 1) for part, spent_ns in cpu_ns.items()},
        )

    def kill(self) -> None:
        """Kill the process that has the disk's driver under verified load, wait until all goes on, and end the load."""
        self._start_guest(VERIFIER)
        self._until_requests(_GOES_ON)
        self._verified = since(passed(self.statuses(), VERIFIER), self._before)
        servers = servers_of(self.statuses())
        victim = servers[DISK]
        pid = read_status(self.run_dir)[victim].pid
        os.kill(pid, signal.SIGKILL)
        self._until(lambda: self._life(victim) not in (0, pid), f"{victim} does not come back")
        self._until_requests(self._requests() + _GOES_ON)
        terminal = self.run_dir.console_tty(f"{VERIFIER}.hvc0")
        self._until(terminal.exists, "there is no terminal")
        with terminal.open("wb", buffering=0) as typed:
            typed.write(b"stop\r")
        found = self._ended(VERIFIER)
        ended_ns = time.time_ns()
        self._until(lambda: HYPERVISOR in self.statuses(ended_ns), "the hypervisor is silent")
        self._end_guest()
        pairs = self.statuses()[HYPERVISOR]["controllers"]
        self._kill = KillResult(
            process=victim,
            devices=tuple(device for device, name in DEVICES.items() if servers[name] == victim),
            pause_ms=found["pause_ms"],
            resubmitted=sum(pairs[name]["resubmitted"] for name in DEVICES.values()),
            checked=found["checked"],
            errors=found["wrong"] + found["failed"] + found["repeats"],
        )

    def result(self) -> PlacementResult:
        """Everything that was found."""
        assert self._kill is not None, "the kill comes before the result"
        statuses = self.statuses()
        devices, servers = devices_of(statuses), set(servers_of(statuses).values())
        classes: dict[str, str] = {}
        for name in DEVICES.values():
            classes |= devices[name]["classes"]
        drivers = statuses[HYPERVISOR]["guests"][VERIFIER]["drivers"]
        kinds = [self.topology.controller(name).kind for name in DEVICES.values()]
        return PlacementResult(
            loads=self._loads,
            kill=self._kill,
            device_processes=len(servers),
            device_rss_bytes=sum(statuses[name]["rss_bytes"] for name in servers),
            all_processes=_active(self._verified.messages),
            hypervisor_side=code_of(classes_of(drivers.values())),
            device_side=code_of(classes),
            host_drivers=() if self.driver == NATIVE else tuple(HOST_DRIVERS[kind] for kind in kinds),
            sha256=self._sha256(),
            problems=tuple(self._problems()),
        )

    def close(self) -> None:
        """End everything."""
        self._end_guest()
        take_down(self.run_dir)

    def statuses(self, since_ns: int = 0) -> dict[str, Content]:
        """What the processes have said of themselves, wall clock `since_ns` or later."""
        found = read_status(self.run_dir)
        return {
            name: status.content | {"state": status.state}
            for name, status in found.items()
            if status.updated_ns >= since_ns
        }

    # --- guests

    def _finish_guest(self, name: str) -> tuple[dict[str, Any], Passed]:
        """Wait for the end of a guest; returns what it found and what that took."""
        found = self._ended(name)
        ended_ns = time.time_ns()
        settled: list[dict[str, Content]] = []

        def look() -> bool:
            statuses = self.statuses(ended_ns)
            complete = {name, HYPERVISOR, *servers_of(self.statuses()).values()} <= statuses.keys()
            settled[:] = [statuses] if complete and agreed(statuses, name) else []
            return bool(settled)

        self._until(look, "the processes' counts do not agree")
        self._end_guest()
        return found, since(passed(settled[0], name), self._before)

    def _start_guest(self, name: str) -> None:
        self._before = passed(self.statuses(), name)
        process = next(process for process in self.topology.processes() if process.name == name)
        log = self.run_dir.open_log(name)
        try:
            self._guest = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                process.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.topology.environment() | {"IOVIRT_SUPERVISED": "1"},
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _end_guest(self) -> None:
        guest, self._guest = self._guest, None
        if guest is None:
            return
        guest.terminate()
        try:
            guest.wait(5.0)
        except subprocess.TimeoutExpired:
            guest.kill()
            guest.wait()

    def _ended(self, name: str) -> dict[str, Any]:
        """Wait until a guest's script has ended; returns its results."""
        self._until(lambda: self.statuses().get(name, {}).get("state") == "stopped", f"guest {name} does not end", name)
        results: dict[str, Any] = self.statuses()[name]["results"]
        return results

    def _requests(self) -> int:
        results = self.statuses().get(VERIFIER, {}).get("results", {})
        return int(results.get("requests", 0))

    def _until_requests(self, count: int) -> None:
        self._until(lambda: self._requests() >= count, f"guest {VERIFIER} does not go on", VERIFIER)

    def _life(self, name: str) -> int:
        status = read_status_file(self.run_dir.status(name))
        return status.pid if status is not None and status.alive else 0

    def _until(self, done: Callable[[], bool], failure: str, process: str = "") -> None:
        """Wait for a condition.

        Raises:
            LocalError: It does not hold in time, or the guest has gone.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            gone = self._guest is not None and self._guest.poll() is not None
            if gone or time.monotonic() > deadline:
                words = last_words(self.run_dir, process) if process else ""
                raise LocalError(failure, f"driver {self.driver}", words)
            time.sleep(_POLL_S)

    # --- verdict

    def _sha256(self) -> str:
        """Checksum of what the writing guests left on the disk."""
        digest = hashlib.sha256()
        with (self.base / "disk.img").open("rb") as image:
            for begin, end in written_ranges():
                image.seek(begin)
                digest.update(image.read(end - begin))
        return digest.hexdigest()

    def _problems(self) -> list[str]:
        assert self._kill is not None, "the kill comes before the result"
        problems = [f"{name}: {load.failed} requests failed" for name, load in self._loads.items() if load.failed]
        if self._kill.errors or not self._kill.checked:
            problems.append(f"{self._kill.errors} errors in {self._kill.checked} checks under a kill")
        return problems


def _as_idle(name: str, load: Load) -> str:
    """The process of the idle run that stands for one of a load's: its guest for the guest."""
    return IDLE if name == load.name else name


def _active(messages: Mapping[str, int]) -> int:
    """Processes that passed messages."""
    return sum(count > 0 for count in messages.values())
