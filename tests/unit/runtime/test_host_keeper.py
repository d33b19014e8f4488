"""A host's guests follow the file of `iovirt scale`, in the right order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_asyncio import fixture

from iovirt_dist.runtime import host_keeper
from iovirt_dist.runtime.host_keeper import HostKeeper, lagging
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import write_scaling
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.runtime.supervise import Supervisor
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology import ProcessSpec, Topology
from iovirt_dist.topology.scaling import Scaling, read_scaling

ONE_GUEST = {"guest": {"guest": {"devices": {"disk": ""}}}}


class FakeSupervisor:
    """Does what it is asked at once.

    Attributes:
        done: What it was asked, in order.
        told: What its status file would tell.
    """

    def __init__(self) -> None:
        self.done: list[tuple[str, list[str]]] = []
        self.told: dict[str, Any] = {}

    def add(self, processes: Sequence[ProcessSpec]) -> None:
        """Note the names."""
        self.done.append(("add", [process.name for process in processes]))

    async def remove(self, names: Collection[str]) -> None:
        """Note the names."""
        self.done.append(("remove", sorted(names)))

    def tell(self, **content: Any) -> None:
        """Note it."""
        self.told |= content


class Bench:
    """A host of which the hypervisor lives and its keeper runs."""

    def __init__(self, folder: Path) -> None:
        self.topology = write_topology(None, folder, ONE_GUEST)
        self.run_dir = RunDir(self.topology.run_dir)
        self.run_dir.create()
        self.supervisor = FakeSupervisor()
        self.reports: list[tuple[str, str]] = []
        self._hypervisor = StatusWriter(self.run_dir, "hv0", "hypervisor", 1, 1)
        self.hypervisor_follows(0)
        supervisor = cast("Supervisor", self.supervisor)
        keeper = HostKeeper(self.topology, supervisor, lambda name, text: self.reports.append((name, text)))
        self.task = asyncio.create_task(keeper.run())

    def hypervisor_follows(self, revision: int) -> None:
        """The hypervisor tells that it serves a revision."""
        self._hypervisor.update(time.time_ns(), force=True, revision=revision)

    def scale(self, count: int, digest: str = "") -> None:
        """What ``iovirt scale`` does."""
        revision = read_scaling(self.run_dir.path).revision
        scaling = Scaling(revision + 1, digest or self.topology.digest, {"guest": count})
        assert write_scaling(self.run_dir, revision, scaling)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something; the test's timeout is the limit."""
        while not holds():
            assert not self.task.done()
            await asyncio.sleep(0.005)


@fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A keeper that looks often."""
    monkeypatch.setattr(host_keeper, "POLL_S", 0.005)
    made = Bench(tmp_path)
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_new_guests_start_once_the_hypervisor_serves_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, or they would be refused."""
    looks: list[list[str]] = []

    def look(topology: Topology, run_dir: RunDir) -> list[str]:
        looks.append(lagging(topology, run_dir))
        return looks[-1]

    monkeypatch.setattr(host_keeper, "lagging", look)
    bench.scale(3)
    await bench.until(lambda: len(looks) >= 3)
    before = list(bench.supervisor.done)
    bench.hypervisor_follows(1)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 1)

    assert before == []
    assert looks[:3] == [["hv0"]] * 3
    assert bench.supervisor.done == [("add", ["guest-2", "guest-3"])]
    assert bench.supervisor.told["digest"] == bench.topology.digest


async def test_less_is_told_once_the_hypervisor_has_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the revision finds nothing left of a guest, at the hypervisors and controllers neither."""
    looks: list[tuple[list[str], object]] = []

    def look(topology: Topology, run_dir: RunDir) -> list[str]:
        looks.append((lagging(topology, run_dir), bench.supervisor.told.get("revision")))
        return looks[-1][0]

    monkeypatch.setattr(host_keeper, "lagging", look)
    bench.scale(0)
    await bench.until(lambda: len(looks) >= 3)
    bench.hypervisor_follows(1)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 1)

    assert looks[:3] == [(["hv0"], 0)] * 3
    assert bench.supervisor.done == [("remove", ["guest"])]


async def test_hypervisor_that_does_not_follow_is_not_waited_for_without_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang; its guests find it when it goes on."""
    monkeypatch.setattr(host_keeper, "FOLLOW_S", 0.02)
    bench.scale(2)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 1)

    assert bench.supervisor.done == [("add", ["guest-2"])]
    assert bench.reports == [("hv0", "has not followed the topology to revision 1 yet")]


async def test_guest_that_is_gone_leaves_nothing(bench: Bench) -> None:
    """Although it was killed and could not clean up; and the next change is followed, too."""
    StatusWriter(bench.run_dir, "guest", "guest", 1, 1).update(1)
    lock = bench.run_dir.socket("guest.lock")
    lock.touch()
    bench.scale(0)
    await bench.until(lambda: not lock.exists())
    bench.hypervisor_follows(1)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 1)
    bench.hypervisor_follows(2)
    bench.scale(1)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 2)

    assert bench.supervisor.done == [("remove", ["guest"]), ("add", ["guest"])]
    assert not lock.exists()
    assert not bench.run_dir.status("guest").exists()


async def test_change_that_cannot_be_followed_is_told(bench: Bench) -> None:
    """And forgotten with the next one that can."""
    bench.scale(2, digest="other")
    await bench.until(lambda: bool(bench.supervisor.told.get("scale_problem")))
    problem = bench.supervisor.told["scale_problem"]
    bench.hypervisor_follows(2)
    bench.scale(2)
    await bench.until(lambda: bench.supervisor.told.get("revision") == 2)

    assert "the topology file was changed" in problem
    assert bench.supervisor.told["scale_problem"] == ""
