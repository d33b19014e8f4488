"""The status file of a running process."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status_file
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.testing.documents import write_topology


async def test_telemetry_writes_at_once_and_removes_at_the_end(tmp_path: Path) -> None:
    """Whoever waits for the file knows that the process serves."""
    topology = write_topology(None, tmp_path, {})
    spec = next(iter(topology.hypervisors.values()))
    path = RunDir(topology.run_dir).status("hv0")

    async with Telemetry(topology, spec, 7, lambda: {"state": "running", "guests": {}}):
        written = read_status_file(path)

    assert written is not None
    assert (written.name, written.kind, written.epoch, written.state) == ("hv0", "hypervisor", 7, "running")
    assert written.content["cpu_ns"] > 0
    assert written.content["rss_bytes"] > 1 << 20
    assert not path.exists()


async def test_telemetry_removes_the_file_when_the_process_fails(tmp_path: Path) -> None:
    """A status file without a process would be a lie."""
    topology = write_topology(None, tmp_path, {})
    spec = next(iter(topology.hypervisors.values()))

    with pytest.raises(ZeroDivisionError):
        async with Telemetry(topology, spec, 7, lambda: {"state": "running"}):
            raise ZeroDivisionError

    assert not RunDir(topology.run_dir).status("hv0").exists()
