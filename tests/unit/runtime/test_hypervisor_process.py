"""A hypervisor's process on a real loop, without guests."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.platform.qos import Qos
from iovirt_dist.runtime.hypervisor_process import HypervisorProcess
from iovirt_dist.runtime.qos_file import change_settings
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology import Topology, load_topology

TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
[guest.w]
kind = "script"
hypervisor = "hv0"
count = COUNT
script = "x.py:main"
devices = { disk = "disk0", overlay = true }
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def _topology(folder: Path, count: int) -> Topology:
    path = folder / "t.toml"
    path.write_text(TOPOLOGY.replace("COUNT", str(count)))
    return load_topology(path)


async def test_reload_goes_on_when_settings_of_guests_that_are_gone_cannot_be_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are gone: who reads that the topology could not be followed would do it again."""
    topology = _topology(folder, 3)
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    process, stop = HypervisorProcess(topology, topology.hypervisor("hv0")), asyncio.Event()
    running = asyncio.create_task(process.run(stop))
    await asyncio.sleep(0)
    change_settings(run_dir, "hv0", "w-3.disk", lambda _: Qos(weight=2))
    before = process.status()["qos_revision"]
    smaller = _topology(folder, 2)

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        process.reload(smaller)
    guests = list(process.core.guests)
    stop.set()
    await running

    assert (before, guests) == (1, ["w-1", "w-2"])
    assert "cannot be written: No space left on device" in caplog.text
