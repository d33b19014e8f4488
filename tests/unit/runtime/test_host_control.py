"""Hosts that answer, hosts that do not, and what comes from neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_asyncio import fixture

from iovirt_dist.runtime.control_messages import (
    Agreed,
    ChangeScaling,
    ProcessReport,
    ReadScaling,
    ReadStatus,
    Refused,
    ScalingRead,
    StatusRead,
)
from iovirt_dist.runtime.host_control import HostControl, answer, ask_hosts
from iovirt_dist.runtime.remote_view import view_hosts, view_reply
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.scale import adopt
from iovirt_dist.runtime.scale_file import write_scaling
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.testing.documents import free_port
from iovirt_dist.topology import Topology, load_topology
from iovirt_dist.topology.scaling import NOT_SCALED, Scaling, read_scaling
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.zeromq import dial

TEXT = """
[host.a]
address = "127.0.0.1"
control_port = {a}
[host.b]
address = "127.0.0.2"
control_port = {b}
[hypervisor.hv-a]
host = "a"
[hypervisor.hv-b]
host = "b"
[controller.rng0]
kind = "rng"
host = "a"
[guest.x]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = ["hv-a", "hv-b"]
devices.rng = "rng0"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """Two hosts, whose supervisors tell that they live; no other process does."""
    file = tmp_path / "t.toml"
    file.write_text(TEXT.format(a=free_port(), b=free_port()))
    topology = load_topology(file)
    for host in topology.hosts:
        part = topology.at(host)
        run_dir = RunDir(part.run_dir)
        run_dir.create()
        status = StatusWriter(run_dir, SUPERVISOR, "supervisor", 1, 1)
        rows = {f"hv-{host}": {"state": "up", "pid": 7}}
        status.update(1, state="running", processes=rows, digest=topology.digest)
        StatusWriter(run_dir, f"hv-{host}", "hypervisor", 1, time.time_ns()).update(1, state="running")
    return topology


@fixture
async def control_b(topology: Topology) -> AsyncIterator[HostControl]:
    """Host b's control, which listens."""
    control = HostControl(topology.at("b"))
    yield control
    control.close()


def change(topology: Topology, count: int, *, revision: int = 1, try_only: bool = False) -> ChangeScaling:
    """A request for so many guests."""
    return ChangeScaling(9, revision - 1, Scaling(revision, topology.digest, {"x": count}), try_only)


def test_change_is_tried_before_it_is_made(topology: Topology) -> None:
    """The first leaves everything as it is; the second is for the next revision only."""
    part = topology.at("a")

    tried = answer(change(topology, 3, try_only=True), part, topology.digest)
    untouched = read_scaling(part.run_dir)
    made = answer(change(topology, 3), part, topology.digest)
    again = answer(change(topology, 4), part, topology.digest)

    assert (tried, made) == (Agreed(9), Agreed(9))
    assert untouched == NOT_SCALED
    assert read_scaling(part.run_dir).counts == {"x": 3}
    assert again == Refused(9, "somebody else scales it; try again")


def test_change_that_cannot_be_is_refused_with_its_reason(topology: Topology) -> None:
    """Another topology file, and one that cannot be resolved."""
    part = topology.at("a")
    assert topology.source is not None

    other = answer(change(topology, 3), part, "other")
    topology.source.write_text("[")
    broken = answer(change(topology, 3), part, topology.digest)

    assert isinstance(other, Refused)
    assert "not the topology file with which the host came up" in other.what
    assert isinstance(broken, Refused)
    assert "not valid TOML" in broken.what
    assert read_scaling(part.run_dir) == NOT_SCALED


async def test_hosts_answer_and_one_that_is_silent_is_told_as_such(topology: Topology, control_b: HostControl) -> None:
    """Nobody waits longer than the deadline."""
    write_scaling(RunDir(topology.at("b").run_dir), 0, Scaling(1, topology.digest, {"x": 2}))
    started = time.monotonic()

    replies = await asyncio.to_thread(ask_hosts, topology, {"a": ReadScaling(1), "b": ReadScaling(2)}, 0.5)

    assert replies["b"] == ScalingRead(2, topology.digest, Scaling(1, topology.digest, {"x": 2}))
    assert replies["a"] == Refused(1, f"host 'a' does not answer at {topology.hosts[topology.at('a').host].control}")
    assert list(replies) == ["a", "b"]
    assert time.monotonic() - started < 10
    assert not control_b.rejects


async def test_chosen_host_answers_from_its_files(topology: Topology) -> None:
    """Nothing listens there; a host that is not up says so."""
    part = topology.at("b")

    here = ask_hosts(part, {"b": ReadScaling(1)})
    RunDir(part.run_dir).clean()
    down = ask_hosts(part, {"b": ReadScaling(1)})

    assert here == {"b": ScalingRead(1, topology.digest, NOT_SCALED)}
    assert isinstance(down["b"], Refused)
    assert "host 'b' is not up in" in down["b"].what


async def test_bytes_that_are_no_request_are_counted_and_get_no_answer(
    topology: Topology, control_b: HostControl
) -> None:
    """The next request is answered as if nothing had been."""
    port = dial(topology.hosts[topology.at("b").host].control)
    for frames in ([b"\xc1"], [b"", b""], [bytes(2 << 20)]):
        port.send(ONLY_PEER, frames)

    replies = await asyncio.to_thread(ask_hosts, topology, {"b": ReadStatus(1)})
    while sum(control_b.rejects.values()) < 3:
        await asyncio.sleep(0.01)
    nothing = port.receive()
    port.close()

    assert isinstance(replies["b"], StatusRead)
    assert control_b.rejects == {"bad-request": 1, "frames": 1, "size": 1}
    assert nothing is None


async def test_view_of_all_hosts_has_what_they_tell_and_who_tells_nothing(
    topology: Topology, control_b: HostControl
) -> None:
    """And the topology as it was scaled."""
    scaling = Scaling(1, topology.digest, {"x": 2}, {"x": "hv-a", "x-2": "hv-b"})
    write_scaling(RunDir(topology.at("b").run_dir), 0, scaling)

    seen = await asyncio.to_thread(view_hosts, topology, 1.0)

    assert list(seen.problems) == ["a"]
    assert seen.view.alive == {"hv-b"}
    assert seen.view.statuses["hv-b"].state == "running"
    assert seen.view.supervised == {"hv-b": {"state": "up", "pid": 7}}
    assert list(seen.topology.guests) == ["x", "x-2"]
    assert control_b.rejects.total() == 0


def test_view_of_a_reply_trusts_nothing_in_it() -> None:
    """Files that are no status files, and a supervisor's that is none."""
    reports = [
        ProcessReport("hv0", True, b"[" * 100_000),
        ProcessReport("hv1", True, b'{"name": 3}'),
        ProcessReport("hv2", False, b'{"name": "hv2", "started_ns": 10}'),
        ProcessReport(SUPERVISOR, True, b'{"name": "_up", "processes": [1]}'),
    ]
    now_ns = time.time_ns()

    view = view_reply(StatusRead(1, now_ns - 1_000_000_000_000, reports))

    assert view.alive == {"hv0", "hv1"}
    assert {name: status.state for name, status in view.statuses.items()} == {"hv0": "", "hv1": "", "hv2": ""}
    assert view.statuses["hv2"].started_ns >= 1_000_000_000_000
    assert view.supervised == {}


async def test_host_that_starts_takes_over_how_the_others_were_scaled(
    topology: Topology, control_b: HostControl
) -> None:
    """So that it starts nothing that is elsewhere now; where all are as the file says, or silent, it starts that."""
    alone = await asyncio.to_thread(adopt, topology.at("b"), 0.2)
    unscaled = await asyncio.to_thread(adopt, topology.at("a"))
    scaling = Scaling(4, topology.digest, {"x": 2}, {"x": "hv-b", "x-2": "hv-b"})
    write_scaling(RunDir(topology.at("b").run_dir), 0, scaling)

    adopted = await asyncio.to_thread(adopt, topology.at("a"))

    assert (alone.revision, unscaled.revision, adopted.revision) == (0, 0, 4)
    assert unscaled.names("guest") == ["x"]
    assert adopted.names("guest") == []
    assert read_scaling(adopted.run_dir) == scaling
    assert control_b.rejects.total() == 0
