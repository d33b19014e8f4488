"""Virtual machines below ``iovirt up``: a VMM that is killed boots again, and ``iovirt down`` leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status_file, start_ticks
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from iovirt_dist.testing.processes import eventually
from tests.guests.linux_vm import Shell, tables, vm
from tests.guests.support import needs_vmm

pytestmark = [pytest.mark.firmware, needs_vmm("qemu"), needs_vmm("uml"), pytest.mark.timeout(900)]

DOWN_S = 60.0


async def iovirt_command(topology: LiveTopology, *words: str) -> None:
    """Run ``iovirt``.

    Raises:
        AssertionError: It fails.
    """
    file = str(topology.topology.source)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "iovirt_dist.cli.main", *words, "--file", file),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def children(parent: int) -> list[int]:
    """All children of a process that run now, the oldest first."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def below(ancestor: int) -> set[int]:
    """All processes below one that run now."""
    first = children(ancestor)
    return set(first).union(*map(below, first))


def vmm_of(run_dir: RunDir, guest: str) -> int:
    """The process that is a guest's VMM: the keeper's first child, as User-Mode Linux has more."""
    status = read_status_file(run_dir.status(f"{guest}.vmm"))
    assert status is not None
    return children(status.content["keeper_pid"])[0]


def memory_files(processes: set[int]) -> set[str]:
    """Files in /dev/shm that processes have open or mapped, by the names that they had when they were made."""
    found: set[str] = set()
    for pid in processes:
        paths = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        found |= {path.removesuffix(" (deleted)") for path in paths if path.startswith("/dev/shm/")}
    return found


async def test_killed_vmms_boot_again_and_down_leaves_nothing(
    iovirt: TopologyFactory, uml_initrd: Path, plain_initrd: Path
) -> None:
    """SIGKILL of QEMU and of User-Mode Linux: by policy each is started again, on the same gateway."""
    guests = {
        "u": vm("uml", uml_initrd, {"disk": "disk0/u"}, memory="64MiB"),
        "q": vm("qemu", plain_initrd, {"disk": "disk0/q"}, memory="128MiB"),
    }
    extents: dict[str, Any] = {"u": {"size": "1MiB"}, "q": {"offset": "1MiB", "size": "1MiB"}}
    disk = {"kind": "block", "image": "disk0.img", "size": "2MiB", "extents": extents}
    topology = iovirt.prepare(tables(guests, disk0=disk))
    run_dir, shells = topology.run_dir, {name: Shell(topology, name) for name in guests}

    await iovirt_command(topology, "up", "-d")
    try:
        for name, shell in shells.items():
            await shell.ready()
            await shell.run(f"echo {name} was here | dd of=/dev/vda conv=fsync")
        for name in guests:
            os.kill(vmm_of(run_dir, name), signal.SIGKILL)
        for shell in shells.values():
            await shell.ready()
        words = [await shell.run("head -n 1 /dev/vda") for shell in shells.values()]
        supervisor = read_status_file(run_dir.status("_up"))
        assert supervisor is not None
        everything = {supervisor.pid, *below(supervisor.pid)}
        memory = memory_files(everything)
    finally:
        await iovirt_command(topology, "down")

    assert words == ["u was here\n", "q was here\n"]
    assert len(everything) > len(guests) * 4
    await eventually(lambda: not any(map(start_ticks, everything)), DOWN_S, lambda: f"{everything} do not end")
    assert memory
    assert [name for name in memory if Path(name).exists()] == []
    assert run_dir.leftovers() == []
