"""A load generator for disks: ``script = "iovirt_dist.guest.script.load:main"``.

It keeps a number of requests in flight for a while and counts. Parameters, all optional:

    request = "read"        # or "write", or "flush", which moves no data
    block = "4KiB"          # data of a request, whole sectors
    depth = 64              # requests in flight
    pattern = "random"      # or "sequential"
    read_percent = 100      # with request = "read": how many of 100 requests are reads, the others write
    seconds = 5.0           # how long, after the warm-up
    requests = 0            # end after so many, if not 0
    warm_up_seconds = 0.5   # what is done in it is not counted
    batch = 1               # requests that must be free before more are submitted
    doorbell = 0            # most requests that a doorbell offers, if not 0: fewer, but the first of them sooner
    interrupts = false      # have the disk interrupt; otherwise it is polled
    packed = false          # packed rings
    window_seconds = 0.0    # publish what each window of so long brought, while the load runs; 0 for no windows
    seed = 1                # of the random pattern

What it found is published as results and said in one line: ``requests seconds iops mib_per_s failed latency_us``
(``p50 p99 max`` of the first `MAX_LATENCIES`, from the doorbell to the moment when the script sees the completion).

Windows begin at multiples of their length on the host's monotonic clock, so those of all guests of a host are the same
stretches of time. The result ``windows`` holds ``seconds``, ``first`` (number of the first whole window since the
clock's start) and ``requests`` (how many were done in it and in each that followed, the last `MAX_WINDOWS`).
"""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script.disk import BlockIo, Disk, open_disk
from iovirt_dist.guest.script.guest import ScriptGuest
from iovirt_dist.guest.script.parameters import read_parameters
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.block import SECTOR_BYTES, BlockFeature, BlockRequest, BlockStatus
from iovirt_dist.virtio.features import Feature, mask

PLANNED: Final = 8192
"""Requests of which the pattern consists; it is repeated."""

MAX_LATENCIES: Final = 250_000

MAX_WINDOWS: Final = 600

MAX_SECONDS: Final = 1e6
"""Of anything; infinity is more."""

_FEATURES: Final = mask(BlockFeature.RO, BlockFeature.FLUSH)
_DEFAULTS: Final[dict[str, Any]] = {
    "request": "read",
    "block": "4KiB",
    "depth": 64,
    "pattern": "random",
    "read_percent": 100,
    "seconds": 5.0,
    "requests": 0,
    "warm_up_seconds": 0.5,
    "batch": 1,
    "doorbell": 0,
    "interrupts": False,
    "packed": False,
    "window_seconds": 0.0,
    "seed": 1,
}


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The parameters, checked; durations in ns, the block in bytes.

    Attributes are named as the parameters are.
    """

    request: str
    block: int
    depth: int
    pattern: str
    read_percent: int
    seconds_ns: int
    requests: int
    warm_up_ns: int
    batch: int
    doorbell: int
    interrupts: bool
    packed: bool
    window_ns: int
    seed: int


def load_plan(parameters: Mapping[str, Any]) -> LoadPlan:
    """Check parameters.

    Raises:
        ConfigError: One is unknown or not what it may be.
    """
    read = read_parameters(parameters, _DEFAULTS, {"block"})
    given = read.values
    block, window = given["block"], given["window_seconds"]
    read.check(
        {
            "block": (block % SECTOR_BYTES == 0 and 0 < block <= 4 << 20, "whole sectors, at most 4MiB"),
            "depth": (0 < given["depth"] <= 1024, "1 to 1024"),
            "batch": (0 < given["batch"] <= given["depth"], "1 to the depth"),
            "doorbell": (0 <= given["doorbell"] <= given["depth"], "0 to the depth"),
            "read_percent": (0 <= given["read_percent"] <= 100, "0 to 100"),
            "request": (given["request"] in ("read", "write", "flush"), '"read", "write" or "flush"'),
            "pattern": (given["pattern"] in ("random", "sequential"), '"random" or "sequential"'),
            "seconds": (0 <= given["seconds"] <= MAX_SECONDS, "0 to 1000000"),
            "warm_up_seconds": (0 <= given["warm_up_seconds"] <= MAX_SECONDS, "0 to 1000000"),
            "window_seconds": (window == 0 or 0.01 <= window <= MAX_SECONDS, "0, or 0.01 or more"),
            "requests": (given["requests"] >= 0, "0 or more"),
        }
    )
    return LoadPlan(
        given["request"],
        block,
        given["depth"],
        given["pattern"],
        given["read_percent"],
        int(given["seconds"] * 1e9),
        given["requests"],
        int(given["warm_up_seconds"] * 1e9),
        given["batch"],
        given["doorbell"],
        given["interrupts"],
        given["packed"],
        int(window * 1e9),
        given["seed"],
    )


def planned_requests(plan: LoadPlan, capacity: int) -> list[BlockIo]:
    """Make the pattern.

    Args:
        plan: What load.
        capacity: Sectors of the disk.

    Raises:
        ConfigError: The disk is smaller than a block.
    """
    if plan.request == "flush":
        return [BlockIo(BlockRequest.FLUSH)] * PLANNED
    sectors = plan.block // SECTOR_BYTES
    places = capacity // sectors
    if not places:
        raise ConfigError(f"a block of {plan.block} bytes on a disk of {capacity} sectors", "parameters.block")
    chance = random.Random(plan.seed)  # noqa: S311 - a pattern that can be repeated, no secret
    data = chance.randbytes(plan.block)
    requests = []
    for number in range(PLANNED):
        sector = (chance.randrange(places) if plan.pattern == "random" else number % places) * sectors
        if plan.request == "read" and chance.randrange(100) < plan.read_percent:
            requests.append(BlockIo(BlockRequest.IN, sector, sectors))
        else:
            requests.append(BlockIo(BlockRequest.OUT, sector, sectors, data))
    return requests


async def main(guest: ScriptGuest) -> None:
    """Load the disk as the parameters say, and publish what was found."""
    plan = load_plan(guest.parameters)
    features = _FEATURES | (mask(Feature.RING_PACKED) if plan.packed else 0)
    disk = await open_disk(
        guest.virtio(VirtioSlot.DISK),
        depth=plan.depth,
        io_bytes=plan.block,
        interrupts=plan.interrupts,
        features=features,
    )
    requests = planned_requests(plan, disk.capacity)
    if plan.warm_up_ns:
        await _Load(guest, disk, plan, requests).run(plan.warm_up_ns, 0, counted=False)
    load = _Load(guest, disk, plan, requests)
    await load.run(plan.seconds_ns, plan.requests, counted=True)
    results = load.results()
    guest.results.update(results)
    guest.say(" ".join(f"{name}={value}" for name, value in results.items()))


class Windows:
    """How many requests each window of time has brought.

    Args:
        length_ns: Of a window.
        now_ns: Monotonic time at which the load begins; the window that it is in is not counted, as it is not whole.
        publish: Gets the result ``windows`` whenever a window is over.
    """

    def __init__(self, length_ns: int, now_ns: int, publish: Callable[[dict[str, Any]], None]) -> None:
        self._length_ns = length_ns
        self._number = now_ns // length_ns
        self._whole = False
        self._count = 0
        self._first = self._number + 1
        self._counts: deque[int] = deque(maxlen=MAX_WINDOWS)
        self._publish = publish

    def add(self, count: int, now_ns: int) -> None:
        """Count what was done at a time, which never goes back."""
        number = now_ns // self._length_ns
        if number != self._number:
            self._turn(number)
        self._count += count

    def _turn(self, number: int) -> None:
        if self._whole:
            self._counts.append(self._count)
        self._counts.extend([0] * min(number - self._number - 1, MAX_WINDOWS))
        self._first = number - len(self._counts)
        self._number, self._whole, self._count = number, True, 0
        if self._counts:
            seconds = self._length_ns / 1e9
            self._publish({"seconds": seconds, "first": self._first, "requests": list(self._counts)})


class _Load:
    """One stretch of load.

    Args:
        guest: Whose.
        disk: What is loaded.
        plan: How.
        requests: The pattern.
    """

    def __init__(self, guest: ScriptGuest, disk: Disk, plan: LoadPlan, requests: list[BlockIo]) -> None:
        self._guest = guest
        self._disk = disk
        self._plan = plan
        self._requests = requests
        self._started = [0] * (1 << (2 * disk.depth).bit_length())
        self._done = self._failed = self._elapsed_ns = 0
        self._latencies: array[int] = array("q")
        self._windows: Windows | None = None

    async def run(self, duration_ns: int, most: int, *, counted: bool) -> None:
        """Load until the time is over, or so many requests are done, and wait for the rest.

        Args:
            duration_ns: How long.
            most: How many requests, 0 for any number.
            counted: Whether windows are published.
        """
        disk, guest, requests = self._disk, self._guest, self._requests
        started, wrap = self._started, len(self._started) - 1
        begin = now = guest.now_ns()
        if counted and self._plan.window_ns:
            self._windows = Windows(self._plan.window_ns, now, self._publish)
        at_once = self._plan.doorbell or disk.depth
        wanted, at, batch = most or 1 << 62, 0, min(self._plan.batch, disk.depth, at_once)
        while now - begin < duration_ns and wanted:
            while (count := min(disk.free, wanted, at_once)) >= min(batch, wanted) > 0:
                at = at if at + count <= len(requests) else 0
                first = disk.submit_many(requests[at : at + count])
                for number in range(first, first + count):
                    started[number & wrap] = now
                at, wanted = at + count, wanted - count
            now = await self._collect()
        while disk.free < disk.depth:
            now = await self._collect()
        self._elapsed_ns = now - begin

    async def _collect(self) -> int:
        """Take what is done; returns the time."""
        done = await self._disk.completions()
        now, started, wrap = self._guest.now_ns(), self._started, len(self._started) - 1
        if len(self._latencies) < MAX_LATENCIES:
            self._latencies.extend([now - started[one.number & wrap] for one in done])
        self._failed += sum([one.status != BlockStatus.OK for one in done])
        self._done += len(done)
        if self._windows is not None:
            self._windows.add(len(done), now)
        return now

    def _publish(self, windows: dict[str, Any]) -> None:
        self._guest.results["windows"] = windows

    def results(self) -> dict[str, Any]:
        """What was found, as JSON values."""
        seconds = max(self._elapsed_ns, 1) / 1e9
        moved = 0 if self._plan.request == "flush" else self._plan.block * self._done
        ordered = sorted(self._latencies) or [0]
        last = len(ordered) - 1
        places = {"p50": last // 2, "p99": last * 99 // 100, "max": last}
        return {
            "requests": self._done,
            "seconds": round(seconds, 3),
            "iops": round(self._done / seconds),
            "mib_per_s": round(moved / seconds / (1 << 20), 1),
            "failed": self._failed,
            "latency_us": {name: round(ordered[place] / 1e3) for name, place in places.items()},
        }
