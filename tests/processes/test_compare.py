"""``iovirt compare`` and ``iovirt trace`` on real processes."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from typing import Any

import pytest

from iovirt_dist.testing.live import TopologyFactory

PATIENCE_S = 200
IOVIRT = (sys.executable, "-m", "iovirt_dist.cli.main")
CONTENT = random.Random(2026).randbytes(8 << 10)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

pytestmark = pytest.mark.timeout(PATIENCE_S + 40)  # whichever test comes first waits for the comparison


def run(*arguments: str) -> Any:
    """Run a command with --json; it must end well."""
    command = (*IOVIRT, *arguments, "--json")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def comparison() -> Any:
    """A small job with writes at each level."""
    return run("compare", "--size", "8", "--block-size", "2KiB", "--write", "50")


@pytest.mark.parametrize("level", ["operation", "operation_string", "driver", "syscall"])
def test_compare_level_reads_what_the_host_wrote(comparison: Any, level: str) -> None:
    """The checksum is the host's, the time is some time, and commands are the job's requests and flushes."""
    row = comparison["levels"][level]

    assert row["sha256"] == comparison["job"]["sha256"] == SHA256
    assert row["problems"] == []
    assert row["seconds"] > 0
    assert row["commands"] == 7  # four reads, two writes, one flush


def test_compare_tells_what_each_level_knows(comparison: Any) -> None:
    """Concept C12: the operation level loses what a request is, the driver level who asks, system calls nothing."""
    verdicts = {
        name: [known["verdict"] for known in row["knows"].values()] for name, row in comparison["levels"].items()
    }

    operation = ["known", "reconstructed", "reconstructed", "reconstructed", "lost", "lost", "lost"]
    assert verdicts == {
        "operation": operation,
        "operation_string": operation,
        "driver": ["known", "known", "known", "known", "lost", "lost", "lost"],
        "syscall": ["known"] * 7,
    }
    assert comparison["levels"]["operation"]["knows"]["sector_range"]["points_right"] == 0


def test_compare_counts_what_each_level_costs(comparison: Any) -> None:
    """Concept C14: one trap a word, one a sector, one a request and its completion, one a call."""
    levels = comparison["levels"]
    words, sectors, requests = (12 << 10) // 2, (12 << 10) // 512, 6

    traps = {name: row["traps"] for name, row in levels.items()}
    assert words < traps["operation"] < 1.1 * words
    assert sectors < traps["operation_string"] < 10 * sectors + 100
    assert requests <= traps["driver"] < 10 * requests + 40
    assert traps["syscall"] >= requests
    assert comparison["ratios"]["operation/driver"]["traps"] > 50


def test_compare_counts_every_byte_on_both_ways(comparison: Any) -> None:
    """Data crosses twice at each level, guest - hypervisor and hypervisor - controller."""
    moved = comparison["job"]["moved_bytes"]

    assert moved == 12 << 10
    assert all(row["guest_wire_bytes"] > moved for row in comparison["levels"].values())
    assert all(row["disk_wire_bytes"] > moved for row in comparison["levels"].values())


def test_compare_names_the_drivers_on_both_sides(comparison: Any) -> None:
    """Concept C8: two drivers where the guest has one; what system calls cost in routines (C13)."""
    levels = comparison["levels"]

    assert {name: (row["guest_driver"], row["host_driver"]) for name, row in levels.items()} == {
        "operation": ("ATA", "DiskDriver"),
        "operation_string": ("ATA", "DiskDriver"),
        "driver": ("virtio", "DiskDriver"),
        "syscall": ("none", "DiskDriver"),
    }
    assert {name: row["abi"] for name, row in levels.items() if row["abi_routines"]} == {"syscall": "linux_i386"}
    assert levels["syscall"]["system_calls"] == {"close": 1, "fsync": 1, "open": 1, "pwrite64": 2, "read": 4}


async def test_trace_shows_the_path_of_an_io_through_all_processes(iovirt: TopologyFactory) -> None:
    """Raised by the CPU, trapped, submitted, carried out and completed; what is off gives nothing."""
    topology = iovirt.prepare(guest={"guest": {"command_line": "run=job kib=4 result=none"}})
    file = ("--file", str(topology.topology.source))
    topology.run_dir.trace_switch.touch()  # before they start, so that they trace from the beginning
    await topology.start()
    await topology.console().expect("init: all done")
    tracing = run("trace", *file)["tracing"]
    subprocess.run((*IOVIRT, "trace", "--off", *file), check=True, capture_output=True, timeout=30)
    await topology.stop()
    points = run("trace", "guest", "--lines", "0", *file)["points"]

    assert tracing is True
    submit = next(point for point in points if point["event"] == "submit" and point.get("opcode") == "read")
    request = [p for p in points if (p.get("instance"), p["number"]) == (submit["instance"], submit["number"])]
    assert {(point["process"], point["event"]) for point in request} == {
        ("hv0", "submit"),
        ("disk0", "command"),
        ("disk0", "completion"),
    }
    trap = next(p for p in points if p["event"] == "trap" and p["address"] == 0x1F7 and p["kind"] == "port_out")
    path = [(p["process"], p["event"]) for p in points if p["number"] == trap["number"] and "instance" not in p]
    assert sorted(path) == [("guest", "complete"), ("guest", "raise"), ("hv0", "trap")]
