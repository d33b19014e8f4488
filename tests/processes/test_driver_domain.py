"""A driver domain: devices of two guests in one process, which is killed again and again under verified load."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.runtime.rundir import SUPERVISOR
from iovirt_dist.runtime.status import ProcessStatus, read_status, read_status_file
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from iovirt_dist.testing.processes import eventually

VERIFY = "iovirt_dist.guest.script.verify:main"
GUESTS = ("alice", "bob")
KILLS = 20
PATIENCE_S = 30.0
LINE = re.compile(rb"line (\d+) requests (\d+) draws (\d+)\r\n")


class Progress(NamedTuple):
    """A line of a guest's terminal: its number, and what the guest had done by then."""

    line: int
    requests: int
    draws: int


NONE = Progress(0, 0, 0)


def tables(parameters: dict[str, Any], driver: str = "dom0") -> dict[str, Any]:
    """Two guests that verify what a disk, a terminal and an entropy device in one driver domain give them."""
    size = 1 << 20
    extents = {name: {"offset": at * size, "size": size} for at, name in enumerate(GUESTS)}
    devices = ["disk", "rng", "console"]
    return {
        "topology": {"lease": "2s"},
        "hypervisor": {"hv0": {}},
        "driver_domain": {"dom0": {}},
        "controller": {
            "disk0": {"kind": "block", "image": "disk0.img", "size": 2 * size, "extents": extents, "driver": driver},
            "tty0": {"kind": "console", "driver": driver},
            "rng0": {"kind": "rng", "driver": driver},
        },
        "guest": {
            name: {
                "kind": "script",
                "hypervisor": "hv0",
                "script": VERIFY,
                "parameters": {"devices": devices, "seconds": 600.0, **parameters},
                "devices": {"disk": f"disk0/{name}", "virtio_console": "tty0", "rng": "rng0"},
            }
            for name in GUESTS
        },
    }


@contextmanager
def supervised(topology: LiveTopology) -> Iterator[None]:
    """``iovirt up --detach``, and ``iovirt down`` whatever happens."""
    command = (sys.executable, "-m", "iovirt_dist.cli.main")
    file = ("--file", str(topology.topology.source))
    subprocess.run((*command, "up", "--detach", *file), check=True, capture_output=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run((*command, "down", *file), check=True, capture_output=True, timeout=60)


def shown(topology: LiveTopology, guest: str) -> list[Progress]:
    """Whole lines of a guest's terminal."""
    path = topology.run_dir.console_log(f"{guest}.hvc0")
    found = LINE.findall(path.read_bytes()) if path.is_file() else []
    return [Progress(*map(int, line)) for line in found]


def progress(topology: LiveTopology) -> dict[str, Progress]:
    """The last line of each guest."""
    return {guest: [NONE, *shown(topology, guest)][-1] for guest in GUESTS}


async def all_went_on(topology: LiveTopology, since: dict[str, Progress], amount: int) -> None:
    """Wait until the disk, the entropy and the terminal of each guest have given it more."""
    await eventually(
        lambda: all(
            now.requests > since[guest].requests + amount and now.draws > since[guest].draws
            for guest, now in progress(topology).items()
        ),
        PATIENCE_S,
        lambda: f"no progress since {since}: {progress(topology)}\n{topology.run_dir.log('dom0').read_text()[-2000:]}",
    )


async def kill_domain(topology: LiveTopology, last_pid: int) -> int:
    """SIGKILL the next life of the driver domain behind that of `last_pid`; returns its process number."""
    found: list[int] = []

    def look() -> bool:
        status = read_status_file(topology.run_dir.status("dom0"))
        if status is not None and status.alive and status.pid != last_pid:
            found.append(status.pid)
        return bool(found)

    await eventually(look, PATIENCE_S, lambda: f"no new life behind process {last_pid}")
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def guest_results(topology: LiveTopology) -> dict[str, dict[str, Any]]:
    """What the guests have published."""
    statuses = read_status(topology.run_dir)
    return {name: statuses[name].content["results"] for name in GUESTS}


@pytest.mark.timeout(300)  # half a second for each kill, and ten times as much where many want the CPU
async def test_twenty_kills_under_load_lose_nothing_and_no_guest_sees_an_error(iovirt: TopologyFactory) -> None:
    """Concept C9: each time the domain is back, requests in flight are submitted again, and the guests have waited."""
    topology = iovirt.prepare(tables({"depth": 32, "rest": 0.005}))
    chance, pid = random.Random(9), 0
    with supervised(topology):
        before = dict.fromkeys(GUESTS, NONE)
        for _ in range(KILLS):
            await all_went_on(topology, before, chance.randrange(1, 100))
            pid = await kill_domain(topology, pid)
            before = progress(topology)  # nothing is shown any more, until the next life does
        await all_went_on(topology, before, 1)
        for guest in GUESTS:
            topology.console(f"{guest}.hvc0").send_line("stop")
        await eventually(
            lambda: all(read_status(topology.run_dir)[name].state == "stopped" for name in GUESTS),
            PATIENCE_S,
            lambda: f"the guests do not end: {guest_results(topology)}",
        )
        results = guest_results(topology)
        supervisor = read_status_file(topology.run_dir.status(SUPERVISOR))
        hypervisor = read_status_file(topology.run_dir.status("hv0"))

    for found in results.values():
        assert (found["wrong"], found["failed"], found["repeats"]) == (0, 0, 0)
        assert found["checked"] > KILLS
        assert found["pause_ms"]["disk"] > 100  # a restart begins a tenth of a second after the kill
    for guest, found in results.items():
        numbers = [progress.line for progress in shown(topology, guest)]
        assert sorted(set(numbers)) == list(range(1, found["lines"] + 1))
    assert supervisor is not None
    assert supervisor.content["processes"]["dom0"]["restarts"] == KILLS
    assert hypervisor is not None
    assert hypervisor.content["controllers"]["disk0"]["resubmitted"] >= KILLS
    assert "error" not in topology.run_dir.log("dom0").read_text()


def _devices(status: ProcessStatus) -> dict[str, Any]:
    devices: dict[str, Any] = status.content["devices"]
    return devices


async def test_domain_tells_of_each_device_and_the_hypervisor_who_drives_it(
    iovirt: TopologyFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """One process, one status file, one log; ``iovirt ps``, ``config`` and ``console`` know its devices."""
    topology = await iovirt.up(tables({"requests": 200}))
    domain = topology.driver_domain()
    for guest in GUESTS:
        await topology.guest(guest).wait_state("stopped")
    status = await domain.wait_status(lambda status: _devices(status)["disk0"]["completions"] >= 400)
    known = await topology.hypervisor().wait_status(
        lambda status: status.content["guests"]["bob"]["state"] == "stopped"
    )
    file = str(topology.topology.source)

    main(["ps", "--file", file, "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["processes"]}
    main(["config", "--file", file])
    config = capsys.readouterr().out

    assert sorted(rows) == ["alice", "bob", "dom0", "hv0"]
    assert {name: device["kind"] for name, device in _devices(status).items()} == {
        "disk0": "block",
        "tty0": "console",
        "rng0": "rng",
    }
    assert all(device["hypervisors"] == ["hv0"] for device in _devices(status).values())
    assert known.content["guests"]["alice"]["drivers"]["disk"]["driver"] == "dom0"
    assert known.content["guests"]["alice"]["drivers"]["rng"] == {
        "controller": "rng0",
        "driver": "dom0",
        "class": "EntropyDriver",
        "module": "iovirt_dist.drivers.entropy",
    }
    assert "disk0: hypervisor hv0 connected" in domain.log
    assert re.search(r"^dom0 +driver domain +serves disk0, tty0, rng0 *$", config, re.MULTILINE)
    assert re.search(r"^disk0 +block +in dom0", config, re.MULTILINE)


async def test_domain_that_cannot_have_a_device_says_so_in_one_line(iovirt: TopologyFactory) -> None:
    """The whole domain does not start: half of an operating system's devices would be a riddle."""
    topology = iovirt.prepare(tables({}))
    (topology.run_dir.path / "disk0.img").mkdir()
    domain = topology.driver_domain()
    domain.expected_exit = 2

    domain.start()
    code = await domain.exited()

    assert code == 2
    lines = [line for line in domain.log.splitlines() if line.startswith("iovirt: error: ")]
    assert len(lines) == 1
    assert "disk0.img" in lines[0]
