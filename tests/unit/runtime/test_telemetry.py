"""The status file of a running process."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import StatusWriter, read_status_file
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.testing.processes import eventually


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


async def test_telemetry_goes_on_when_the_file_system_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written once is written the next time."""
    topology = write_topology(None, tmp_path, {})
    spec = next(iter(topology.hypervisors.values()))
    results: list[OSError | None] = [None, OSError(errno.ENOSPC, "full")]
    written = []
    put = StatusWriter.put

    def failing(writer: StatusWriter, data: bytes) -> None:
        error = results.pop(0) if results else None
        if error is not None:
            raise error
        put(writer, data)
        written.append(data)

    monkeypatch.setattr(StatusWriter, "put", failing)
    async with Telemetry(topology, spec, 7, lambda: {"state": "running"}):
        await eventually(lambda: len(written) > 1, 10.0, lambda: f"{len(written)} writes")

    assert results == []
