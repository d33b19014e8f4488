"""Controller processes on a real loop and real sockets."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.controllers.base import QueuePairs
from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.entropy import EntropyDriver
from iovirt_dist.runtime.block_process import BlockProcess
from iovirt_dist.runtime.controller_process import serve_controller
from iovirt_dist.runtime.rng_process import RngProcess
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology.specs import BlockSpec, RngSpec, Topology
from iovirt_dist.wire.commands import Opcode, Status
from tests.unit.runtime.hypervisor_peer import PATIENCE_S, Hypervisor


class Device:
    """An entropy device that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Status, bytes]] = []

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep it."""
        self.told.append((tag, status, bytes(data)))


@pytest.fixture
def topology() -> Iterator[Topology]:
    """The built-in topology with an entropy controller, in a folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    yield write_topology(
        None, folder, {"controller": {"rng0": {"kind": "rng"}}, "guest": {"guest": {"devices": {"rng": "rng0"}}}}
    )
    shutil.rmtree(folder)


@asynccontextmanager
async def serving(process: BlockProcess | RngProcess) -> AsyncIterator[None]:
    """Run a process while the body runs."""
    stop = asyncio.Event()
    running = asyncio.create_task(process.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)


async def test_entropy_process_gives_random_bytes(topology: Topology) -> None:
    """From the kernel's generator, two requests in one batch."""
    spec = topology.controller("rng0")
    assert isinstance(spec, RngSpec)
    async with serving(RngProcess(topology, spec)):
        with closing(Hypervisor(spec, "")) as hypervisor:
            driver, device = EntropyDriver(hypervisor.pair, "", guest=5, queue=0), Device()
            driver.attach(device, 0)
            driver.request(1, 32)
            driver.request(2, 65536)
            await hypervisor.until_idle()

    assert [(tag, status, len(data)) for tag, status, data in device.told] == [
        (1, Status.OK, 32),
        (2, Status.OK, 65536),
    ]
    assert device.told[0][2] != device.told[1][2][:32]


class Disk:
    """A virtual disk that keeps what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, bytes] = {}

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep it."""
        assert status is Status.OK
        self.told[tag] = bytes(data)


async def test_block_process_takes_a_batch_of_writes_and_gives_a_batch_of_reads(topology: Topology) -> None:
    """Sixty-four each; the data of all the reads is one frame."""
    spec = topology.controller("disk0")
    assert isinstance(spec, BlockSpec)
    async with serving(BlockProcess(topology, spec)):
        with closing(Hypervisor(spec, "root")) as hypervisor:
            await hypervisor.until_idle()
            identity = hypervisor.pair.use("root").identity
            assert identity is not None
            driver, disk = DiskDriver(hypervisor.pair, "root", identity, guest=5, queue=0), Disk()
            driver.attach(disk, 0)
            for n in range(64):
                driver.submit(DiskRequest(n, Opcode.WRITE, n * 4096, 4096, bytes([n]) * 4096))
            await hypervisor.until_idle()
            hypervisor.frames.clear()
            for n in range(64):
                driver.submit(DiskRequest(n, Opcode.READ, (63 - n) * 4096, 4096))
            await hypervisor.until_idle()

    assert disk.told == {n: bytes([63 - n]) * 4096 for n in range(64)}
    assert hypervisor.frames == [[64 * 4096]]


class Chain:
    """A device, its class and its hands in one: each access ends at once in an outcome that leads to the next access.

    Args:
        length: Accesses until a command completes.
    """

    def __init__(self, length: int) -> None:
        self.pairs = QueuePairs(8, 2)
        self.left = length
        self.ended = asyncio.Event()

    credits = 8

    @property
    def core(self) -> Chain:
        """Itself."""
        return self

    def open_hands(self, _: Callable[[str], None]) -> Chain:
        """Itself, too."""
        return self

    def status(self) -> dict[str, Any]:
        """There is nothing to tell."""
        return {}

    def reload(self, _: Topology) -> None:
        """Nothing follows a topology that was scaled."""

    def deadline_ns(self) -> int | None:
        """Nothing is timed."""
        return None

    def handle(self, event: object, now_ns: int) -> list[str]:
        """Go on with the chain."""
        if not isinstance(event, str) and not hasattr(event, "commands"):
            return []
        self.left -= 1
        if self.left:
            return ["access"]
        self.ended.set()
        return []

    def perform(self, action: str) -> str:
        """End at once."""
        return "outcome"

    def close(self) -> None:
        """Nothing is open."""


async def test_outcomes_that_come_at_once_do_not_pile_up_on_the_stack(topology: Topology) -> None:
    """A thousand and more in a row."""
    spec = topology.controller("rng0")
    chain = Chain(5000)
    stop = asyncio.Event()
    running = asyncio.create_task(serve_controller(topology, spec, chain, stop))
    with closing(Hypervisor(spec, "")) as hypervisor:
        asking = asyncio.create_task(hypervisor.until_idle())
        await asyncio.wait_for(chain.ended.wait(), PATIENCE_S)
        asking.cancel()
    stop.set()
    await asyncio.wait_for(running, PATIENCE_S)

    assert chain.left == 0
