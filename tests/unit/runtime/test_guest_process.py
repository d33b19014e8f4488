"""A guest process whose virtual CPU fails by an error of ours."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.bus import Bus
from iovirt_dist.guest.queues import NoMemory
from iovirt_dist.runtime import guest_process
from iovirt_dist.runtime.guest_process import GuestProcess
from iovirt_dist.runtime.hypervisor_process import HypervisorProcess
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology.specs import MachineSpec, Topology

PATIENCE_S = 10.0


class BrokenCpu:
    """A CPU that fails at power-on."""

    memory = NoMemory()

    def kick(self) -> None:
        """Nothing runs."""

    def reset(self) -> None:
        """Fail."""
        raise ZeroDivisionError("a defect")


@pytest.fixture
def topology() -> Iterator[Topology]:
    """The built-in topology in a folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    yield write_topology(None, folder, {})
    shutil.rmtree(folder)


def _broken(spec: MachineSpec, bus: Bus) -> Any:
    return BrokenCpu()


async def test_guest_process_whose_cpu_fails_stays_and_says_so_and_ends_as_failed(
    topology: Topology, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not end by itself, or a supervisor would start the failure over and over."""
    monkeypatch.setattr(guest_process, "build_cpu", _broken)
    stop, stop_hypervisor = asyncio.Event(), asyncio.Event()
    hypervisor = HypervisorProcess(topology, next(iter(topology.hypervisors.values())))
    serving = asyncio.create_task(hypervisor.run(stop_hypervisor))
    guest = GuestProcess(topology, next(spec for spec in topology.specs() if isinstance(spec, MachineSpec)))
    running = asyncio.create_task(guest.run(stop))

    async with asyncio.timeout(PATIENCE_S):
        while guest.status()["state"] != "stopped":
            await asyncio.sleep(0.01)
    stayed = not running.done()
    status = guest.status()
    stop.set()
    with pytest.raises(LocalError, match="guest: the virtual CPU failed; see the traceback in its log"):
        await running
    stop_hypervisor.set()
    await serving

    assert stayed
    assert status["reason"] == "internal error, see the log"
    assert "a defect" in caplog.text
