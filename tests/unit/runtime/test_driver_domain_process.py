"""A driver domain on a real loop: several devices, each at its own endpoint, in one process."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.controllers.console.config import ConsoleConfig
from iovirt_dist.controllers.console.runner import TerminalDirectory
from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.entropy import EntropyDriver
from iovirt_dist.errors import ImageError
from iovirt_dist.runtime.block_process import BlockProcess
from iovirt_dist.runtime.driver_domain_process import DriverDomainProcess, make_device
from iovirt_dist.runtime.rng_process import RngProcess
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status_file
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology.specs import DriverDomainSpec, Topology
from iovirt_dist.wire.commands import Opcode, Status
from tests.unit.runtime.hypervisor_peer import PATIENCE_S, Hypervisor


class Client:
    """A disk and an entropy device that keep what they are told."""

    def __init__(self) -> None:
        self.read: dict[int, bytes] = {}
        self.drawn: list[int] = []

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep what was read."""
        assert status is Status.OK
        self.read[tag] = bytes(data)

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep how much was drawn."""
        assert status is Status.OK
        self.drawn.append(len(data))


@pytest.fixture
def topology() -> Iterator[Topology]:
    """The built-in topology with an entropy controller; one domain serves its disk, its terminal and that."""
    folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    controllers = {name: {"driver": "dom0"} for name in ("disk0", "tty0")}
    rng = {"kind": "rng", "driver": "dom0"}
    guest = {"devices": {"rng": "rng0"}}
    overrides = {"controller": {**controllers, "rng0": rng}, "driver_domain": {"dom0": {}}, "guest": {"guest": guest}}
    yield write_topology(None, folder, overrides)
    shutil.rmtree(folder)


def domain_of(topology: Topology) -> DriverDomainSpec:
    """The only one."""
    (spec,) = topology.driver_domains.values()
    return spec


@asynccontextmanager
async def serving(topology: Topology) -> AsyncIterator[DriverDomainProcess]:
    """Run the domain while the body runs."""
    process, stop = DriverDomainProcess(topology, domain_of(topology)), asyncio.Event()
    running = asyncio.create_task(process.run(stop))
    try:
        yield process
    finally:
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)


async def use_both(topology: Topology) -> Client:
    """Write and read a block, and draw."""
    client = Client()
    with (
        closing(Hypervisor(topology.controller("disk0"), "root")) as disk,
        closing(Hypervisor(topology.controller("rng0"), "")) as rng,
    ):
        await disk.until_idle()
        identity = disk.pair.use("root").identity
        assert identity is not None
        driver = DiskDriver(disk.pair, "root", identity, guest=5, queue=0)
        driver.attach(client, 0)
        driver.submit(DiskRequest(1, Opcode.WRITE, 4096, 4096, b"x" * 4096))
        driver.submit(DiskRequest(2, Opcode.READ, 4096, 4096))
        source = EntropyDriver(rng.pair, "", guest=5, queue=5)
        source.attach(client, 0)
        source.request(3, 32)
        await disk.until_idle()
        await rng.until_idle()
    return client


async def test_domain_serves_each_device_at_its_own_endpoint(topology: Topology) -> None:
    """Hypervisors dial the same addresses as ever; each device counts for itself."""
    async with serving(topology) as domain:
        client = await use_both(topology)
        devices = domain.status()["devices"]

    assert client.read == {1: b"", 2: b"x" * 4096}
    assert client.drawn == [32]
    assert {name: device["kind"] for name, device in devices.items()} == {
        "disk0": "block",
        "tty0": "console",
        "rng0": "rng",
    }
    assert (devices["disk0"]["completions"], devices["rng0"]["bytes_given"], devices["tty0"]["commands"]) == (3, 32, 0)
    assert devices["disk0"]["classes"] == {
        "BlockController": "iovirt_dist.controllers.block.core",
        "BlockRunner": "iovirt_dist.controllers.block.runner",
    }


async def test_domain_has_one_status_file_and_leaves_nothing(topology: Topology) -> None:
    """Under its own name, with a part for each device."""
    run_dir = RunDir(topology.run_dir)
    async with serving(topology):
        await use_both(topology)
        files = [path.name for path in run_dir.path.glob("status/*.json")]
        status = read_status_file(run_dir.status("dom0"))

    assert files == ["dom0.json"]
    assert status is not None
    assert (status.kind, status.state, sorted(status.content["devices"])) == (
        "driver_domain",
        "running",
        ["disk0", "rng0", "tty0"],
    )
    assert run_dir.leftovers() == []


async def test_domain_traces_name_the_device(topology: Topology) -> None:
    """There is one trace for all of them."""
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    run_dir.trace_switch.touch()
    async with serving(topology):
        await use_both(topology)
    points: list[dict[str, Any]] = [json.loads(line) for line in run_dir.trace_file("dom0").read_text().splitlines()]

    commands = [(point["device"], point["opcode"]) for point in points if point["event"] == "command"]
    assert sorted(commands) == [
        ("disk0", "identify"),
        ("disk0", "read"),
        ("disk0", "write"),
        ("rng0", "entropy_get"),
        ("rng0", "identify"),
    ]


async def test_domain_whose_last_device_cannot_be_opened_gives_the_others_back(topology: Topology) -> None:
    """The terminals' folder is another process's; afterwards somebody else can have the disk."""
    spec = domain_of(topology)
    assert spec.devices[:2] == ("disk0", "tty0")
    taken = TerminalDirectory(ConsoleConfig(directory=topology.run_dir / "console", terminals=()))

    with pytest.raises(ImageError, match="is in use by"):
        await DriverDomainProcess(topology, spec).run(asyncio.Event())

    taken.close()
    async with serving(topology):
        client = await use_both(topology)
    assert client.drawn == [32]


async def test_domain_serves_a_switch_too(topology: Topology) -> None:
    """Its ports are the topology's guests."""
    tables = {"kind": "net", "driver": "dom0", "responder": {"address": "10.0.0.1/24"}}
    folder = topology.run_dir / "n"
    folder.mkdir()
    rng = {"kind": "rng", "driver": "dom0"}
    networked = write_topology(
        None,
        folder,
        {
            "controller": {"sw0": tables, "rng0": rng},
            "driver_domain": {"dom0": {}},
            "guest": {"guest": {"machine": "virt", "image": "x.bin", "devices": {"net": "sw0"}}},
        },
    )
    async with serving(networked) as domain:
        with closing(Hypervisor(networked.controller("sw0"), "guest")) as hypervisor:
            await hypervisor.until_idle()
            identity = hypervisor.pair.use("guest").identity
        devices = domain.status()["devices"]
    assert identity is not None
    assert {name: device["kind"] for name, device in devices.items()} == {"sw0": "net", "rng0": "rng"}
    assert devices["sw0"]["classes"]["NetController"] == "iovirt_dist.controllers.net.core"


def test_make_device_knows_every_kind(topology: Topology) -> None:
    """Each is what the controller's own process would serve."""
    disk, rng = (make_device(topology, topology.controller(name)) for name in ("disk0", "rng0"))
    assert isinstance(disk, BlockProcess)
    assert isinstance(rng, RngProcess)
    assert disk.credits > 0
