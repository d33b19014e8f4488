"""A load that checks everything that it gets back: ``script = "iovirt_dist.guest.script.verify:main"``.

For tests and measurements in which devices, drivers or whole processes fail. On its disk it writes blocks, each with a
content that no other write has, remembers what was acknowledged, and reads them again, at random in between and all of
them at the end; never are two requests for one block in flight, so that what a read must bring is certain. If it has an
entropy device it draws from it, and if it has a virtio console it prints numbered lines there that tell how far it
is, all at the same time.

Parameters, all optional:

    block = "4KiB"          # data of a request, whole sectors
    blocks = 256            # blocks that are used, from the disk's first; fewer if the disk is smaller
    depth = 16              # requests in flight, at most half the blocks
    read_percent = 50       # how many of 100 requests are reads, once something was written
    seconds = 5.0           # how long
    requests = 0            # end after so many, if not 0
    devices = ["disk"]      # of "disk", "rng" and "console": those that take part
    interval = 0.02         # seconds between two lines, and between two draws
    rest = 0.0              # seconds from completions to the next requests
    interrupts = false      # have the disk interrupt; otherwise it is polled
    seed = 1                # of the order

With a console it also ends when the line ``stop`` is typed. What it found is published as results all the time, and
said in one line at the end: ``requests writes checked wrong failed lines draws repeats pause_ms``. `wrong` counts reads
that did not bring what was acknowledged last, `failed` requests that ended with an error, `repeats` draws that were
short or had been there before, and `pause_ms` says for each device the longest time that it was waited for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script.console import open_console
from iovirt_dist.guest.script.disk import BlockDone, BlockIo, Disk, DiskError, open_disk
from iovirt_dist.guest.script.entropy import open_entropy
from iovirt_dist.guest.script.guest import ScriptGuest
from iovirt_dist.guest.script.parameters import read_parameters
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.block import SECTOR_BYTES, BlockRequest, BlockStatus

DEVICES: Final = ("disk", "rng", "console")
DRAW_BYTES: Final = 64
MOST_DRAWS: Final = 65536
"""Draws that are remembered at once."""
STOP_LINE: Final = b"stop"

_STAMP_BYTES: Final = 16
_DEFAULTS: Final[dict[str, Any]] = {
    "block": "4KiB",
    "blocks": 256,
    "depth": 16,
    "read_percent": 50,
    "seconds": 5.0,
    "requests": 0,
    "devices": ["disk"],
    "interval": 0.02,
    "rest": 0.0,
    "interrupts": False,
    "seed": 1,
}


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """The parameters, checked; attributes are named as the parameters are, durations in ns, the block in bytes."""

    block: int
    blocks: int
    depth: int
    read_percent: int
    seconds_ns: int
    requests: int
    devices: tuple[str, ...]
    interval_ns: int
    rest_ns: int
    interrupts: bool
    seed: int


def verify_plan(parameters: Mapping[str, Any]) -> VerifyPlan:
    """Check parameters.

    Raises:
        ConfigError: One is unknown or not what it may be.
    """
    read = read_parameters(parameters, _DEFAULTS, {"block"})
    given = read.values
    block, devices = given["block"], given["devices"]
    read.check(
        {
            "block": (block % SECTOR_BYTES == 0 and 0 < block <= 4 << 20, "whole sectors, at most 4MiB"),
            "blocks": (2 <= given["blocks"] <= 1 << 20, "2 to 1048576"),
            "depth": (0 < given["depth"] <= min(1024, given["blocks"] // 2), "1 to 1024, at most half the blocks"),
            "read_percent": (0 <= given["read_percent"] <= 100, "0 to 100"),
            "seconds": (0 <= given["seconds"] <= 1e6, "0 or more"),
            "requests": (given["requests"] >= 0, "0 or more"),
            "interval": (0 < given["interval"] <= 60, "seconds, at most 60"),
            "rest": (0 <= given["rest"] <= 60, "seconds, at most 60"),
            "devices": (devices and all(one in DEVICES for one in devices), f"some of {', '.join(DEVICES)}"),
        }
    )
    return VerifyPlan(
        block,
        given["blocks"],
        given["depth"],
        given["read_percent"],
        int(given["seconds"] * 1e9),
        given["requests"],
        tuple(devices),
        int(given["interval"] * 1e9),
        int(given["rest"] * 1e9),
        given["interrupts"],
        given["seed"],
    )


class BlockModel:
    """What the blocks of a disk must hold: of each the version that was acknowledged last.

    Args:
        blocks: How many.
        block_bytes: Size of each.
        read_percent: How many of 100 requests are reads, once something was written.
        seed: Of the order.

    Attributes:
        checked: Reads that were compared.
        wrong: Of these, those that brought something else.
        writes: Writes that were acknowledged.
        failed: Requests that ended with an error; what a failed write left in its block is not known.
    """

    def __init__(self, blocks: int, block_bytes: int, read_percent: int, seed: int) -> None:
        self.checked = self.wrong = self.writes = self.failed = 0
        self._blocks = blocks
        self._sectors = block_bytes // SECTOR_BYTES
        self._stamps = block_bytes // _STAMP_BYTES
        self._read_percent = read_percent
        self._chance = random.Random(seed)  # noqa: S311 - an order that can be repeated, no secret
        self._versions: dict[int, int] = {}
        self._busy: dict[int, int] = {}
        self._version = 0

    @property
    def known(self) -> list[int]:
        """Blocks of which it is known what they hold."""
        return sorted(self._versions)

    def content(self, block: int, version: int) -> bytes:
        """What a version of a block is: its number and the version, again and again."""
        return (block.to_bytes(8, "little") + version.to_bytes(8, "little")) * self._stamps

    def next(self) -> tuple[int, BlockIo]:
        """Begin a request for a block that is not busy; returns the block and the request."""
        chance = self._chance
        block = chance.randrange(self._blocks)
        while block in self._busy:
            block = chance.randrange(self._blocks)
        if block in self._versions and chance.randrange(100) < self._read_percent:
            return block, self.read(block)
        self._version += 1
        self._busy[block] = self._version
        data = self.content(block, self._version)
        return block, BlockIo(BlockRequest.OUT, block * self._sectors, 0, data)

    def read(self, block: int) -> BlockIo:
        """Begin to read a known block."""
        self._busy[block] = 0
        return BlockIo(BlockRequest.IN, block * self._sectors, self._sectors)

    def done(self, block: int, done: BlockDone) -> None:
        """End a block's request."""
        version = self._busy.pop(block)
        if done.status != BlockStatus.OK:
            self.failed += 1
            if version:
                self._versions.pop(block, None)
        elif version:
            self.writes += 1
            self._versions[block] = version
        else:
            self.checked += 1
            self.wrong += done.data != self.content(block, self._versions[block])


class _Verification:
    """One run.

    Args:
        guest: Whose.
        plan: What it does.
    """

    def __init__(self, guest: ScriptGuest, plan: VerifyPlan) -> None:
        self._guest = guest
        self._plan = plan
        self._end_ns = guest.now_ns() + plan.seconds_ns
        self._stopped = False
        self._pauses_ns: dict[str, int] = dict.fromkeys(plan.devices, 0)
        self._counts = {"lines": 0, "draws": 0, "repeats": 0}
        self._model = BlockModel(2, SECTOR_BYTES, 0, 0)
        self._requests = 0

    async def run(self) -> None:
        """Use all devices until it is time to end."""
        jobs = {"disk": self._disk, "rng": self._entropy, "console": self._console}
        tasks = [self._guest.spawn(jobs[name]()) for name in self._plan.devices]
        for task in tasks:
            await task

    def publish(self) -> dict[str, Any]:
        """Tell what was found so far."""
        model, pauses = self._model, self._pauses_ns
        found = {
            "requests": self._requests,
            "writes": model.writes,
            "checked": model.checked,
            "wrong": model.wrong,
            "failed": model.failed,
            **self._counts,
            "pause_ms": {name: round(pause / 1e6, 1) for name, pause in pauses.items()},
        }
        self._guest.results.update(found)
        return found

    def _over(self) -> bool:
        most = self._plan.requests
        return self._stopped or self._guest.now_ns() >= self._end_ns or 0 < most <= self._requests

    def _waited(self, device: str, since_ns: int) -> int:
        """Take note of how long a device was waited for; returns the time."""
        now_ns = self._guest.now_ns()
        self._pauses_ns[device] = max(self._pauses_ns[device], now_ns - since_ns)
        return now_ns

    # --- disk

    async def _disk(self) -> None:
        plan = self._plan
        disk = await open_disk(
            self._guest.virtio(VirtioSlot.DISK), depth=plan.depth, io_bytes=plan.block, interrupts=plan.interrupts
        )
        blocks = min(plan.blocks, disk.capacity * SECTOR_BYTES // plan.block)
        if blocks < 2 * disk.depth:
            what = f"{blocks} blocks of {plan.block} bytes on a disk of {disk.capacity} sectors"
            raise ConfigError(what, "parameters.depth", "use at most half as many")
        model = self._model = BlockModel(blocks, plan.block, plan.read_percent, plan.seed)
        in_flight: dict[int, int] = {}
        while not self._over():
            self._submit(disk, in_flight, [model.next() for _ in range(disk.free)])
            await self._collect(disk, in_flight)
            if plan.rest_ns:
                await self._guest.sleep(plan.rest_ns / 1e9)
        while in_flight:
            await self._collect(disk, in_flight)
        try:
            await disk.flush()
        except DiskError:
            model.failed += 1
        await self._read_back(disk)

    async def _read_back(self, disk: Disk) -> None:
        """Read every block that was written."""
        model, in_flight = self._model, dict[int, int]()
        left = model.known
        while left or in_flight:
            now, left = left[: disk.free], left[disk.free :]
            self._submit(disk, in_flight, [(block, model.read(block)) for block in now])
            await self._collect(disk, in_flight)

    def _submit(self, disk: Disk, in_flight: dict[int, int], requests: list[tuple[int, BlockIo]]) -> None:
        if requests:
            first = disk.submit_many([request for _, request in requests])
            in_flight.update({first + at: block for at, (block, _) in enumerate(requests)})

    async def _collect(self, disk: Disk, in_flight: dict[int, int]) -> None:
        begin_ns = self._guest.now_ns()
        done = await disk.completions()
        self._waited("disk", begin_ns)
        for one in done:
            self._model.done(in_flight.pop(one.number), one)
        self._requests += len(done)
        self.publish()

    # --- the others

    async def _entropy(self) -> None:
        """Draw; no draw may come twice."""
        device = await open_entropy(self._guest.virtio(VirtioSlot.ENTROPY), interrupts=self._plan.interrupts)
        seen: set[bytes] = set()
        while not self._over():
            begin_ns = self._guest.now_ns()
            data = await device.read(DRAW_BYTES)
            self._waited("rng", begin_ns)
            self._counts["draws"] += 1
            self._counts["repeats"] += len(data) != DRAW_BYTES or data[:_STAMP_BYTES] in seen
            if len(seen) == MOST_DRAWS:
                seen.clear()
            seen.add(data[:_STAMP_BYTES])
            self.publish()
            await self._guest.sleep(self._plan.interval_ns / 1e9)

    async def _console(self) -> None:
        """Print numbered lines until it is time, or somebody says so."""
        console = await open_console(self._guest.virtio(VirtioSlot.CONSOLE), interrupts=self._plan.interrupts)

        async def listen() -> None:
            while await console.read_line() != STOP_LINE:
                pass
            self._stopped = True

        self._guest.spawn(listen())
        while not self._over():
            begin_ns = self._guest.now_ns()
            line, draws = self._counts["lines"] + 1, self._counts["draws"]
            await console.write(b"line %d requests %d draws %d\r\n" % (line, self._requests, draws))
            self._waited("console", begin_ns)
            self._counts["lines"] += 1
            self.publish()
            await self._guest.sleep(self._plan.interval_ns / 1e9)


async def main(guest: ScriptGuest) -> None:
    """Use and check the devices as the parameters say, and publish what was found."""
    verification = _Verification(guest, verify_plan(guest.parameters))
    await verification.run()
    found = verification.publish()
    guest.say(" ".join(f"{name}={value}" for name, value in found.items()))
