"""Host-side drivers placed natively and in a driver domain: what is run, and what was found.

Natively each device is a controller process and the hypervisor drives it; with a driver domain one process serves all
devices with the host operating system's own drivers. Guests, their devices and their load are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HYPERVISOR: Final = "hv0"
DOMAIN: Final = "dom0"
DISK, TERMINAL, ENTROPY = "disk0", "tty0", "rng0"
DEVICES: Final = {"disk": DISK, "console": TERMINAL, "rng": ENTROPY}
"""Controllers by what the guest that verifies calls them."""

PLACEMENTS: Final = {"native": "native", "driver_domain": DOMAIN}
"""Values of a controller's ``driver`` by the name of the placement."""

LOAD: Final = "iovirt_dist.guest.script.load:main"
VERIFY: Final = "iovirt_dist.guest.script.verify:main"
BLOCK_BYTES: Final = 4096
EXTENT_BYTES: Final = 1 << 20
FILL_REQUESTS: Final = 4096
"""Requests of a guest that fills its extent: each block sixteen times."""
VERIFIER: Final = "verify"
IDLE: Final = "idle"

HOST_DRIVERS: Final = {"block": "files", "console": "pseudo-terminals", "rng": "getrandom", "net": "TAP"}
"""What a driver domain uses of the host's kernel, by kind of the controller."""


@dataclass(frozen=True, slots=True)
class Load:
    """A guest that loads its disk.

    Attributes:
        name: The guest's.
        request: ``read`` or ``write``.
        depth: Requests in flight.
        fills: Whether it writes every block of its extent, and ends when that is done some times over.
    """

    name: str
    request: str
    depth: int
    fills: bool = False

    def parameters(self, seconds: float) -> dict[str, Any]:
        """Parameters of the load generator."""
        common = {"request": self.request, "depth": self.depth, "warm_up_seconds": 0.0}
        if self.fills:
            return common | {"pattern": "sequential", "requests": FILL_REQUESTS, "seconds": 60.0}
        return common | {"seconds": seconds}


LOADS: Final = (
    Load("read1", "read", 1),
    Load("write1", "write", 1),
    Load("read64", "read", 64),
    Load("write64", "write", 64, fills=True),
)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load found.

    Attributes:
        requests: How many there were.
        iops: Requests a second.
        p50_us: Median latency, microseconds.
        p99_us: 99th percentile of it.
        failed: Requests that ended with an error.
        messages: Numbered messages that each request took, from the guest to the device and back.
        processes: Processes that these messages passed.
        cpu_us: Microseconds of CPU time that each request took, by part: ``hypervisor``, ``devices``.
    """

    requests: int
    iops: int
    p50_us: int
    p99_us: int
    failed: int
    messages: float
    processes: int
    cpu_us: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class KillResult:
    """What a SIGKILL of the process that has the disk's driver cost a guest under verified load.

    Attributes:
        process: Which one.
        devices: Whose devices were gone with it.
        pause_ms: Longest time that the guest waited, by device.
        resubmitted: Requests that were submitted again.
        checked: Blocks that were read and compared.
        errors: Requests that failed, reads that were wrong, and random bytes that came twice.
    """

    process: str
    devices: tuple[str, ...]
    pause_ms: Mapping[str, float]
    resubmitted: int
    checked: int
    errors: int


@dataclass(frozen=True, slots=True)
class Code:
    """Code on one side.

    Attributes:
        names: Of classes, or of the host's drivers.
        lines: Lines of code of the modules that they are in; 0 for what is the host's.
    """

    names: tuple[str, ...]
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementResult:
    """One placement.

    Attributes:
        loads: By the load's name.
        kill: What a crash costs.
        device_processes: Processes that serve the three devices.
        device_rss_bytes: Their resident memory.
        all_processes: Processes that passed a message while a guest used all three devices.
        hypervisor_side: What the hypervisor has for the three devices.
        device_side: What is at the other end, in our code.
        host_drivers: What that uses of the host; nothing where it stands for the hardware itself.
        sha256: Checksum of what a writing guest left on the disk.
        problems: Why this is no success, one line each.
    """

    loads: Mapping[str, LoadResult]
    kill: KillResult
    device_processes: int
    device_rss_bytes: int
    all_processes: int
    hypervisor_side: Code
    device_side: Code
    host_drivers: tuple[str, ...]
    sha256: str
    problems: tuple[str, ...] = field(default=())


def placement_topology(driver: str, base: Path, seconds: float) -> str:
    """Return a topology whose three devices have their driver there, everything of it below `base`.

    Args:
        driver: Value of the controllers' ``driver``.
        base: Existing folder.
        seconds: How long each load takes.
    """
    guests: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
        load.name: (LOAD, load.parameters(seconds), {}) for load in LOADS
    }
    guests[IDLE] = (LOAD, {"seconds": 0.0, "warm_up_seconds": 0.0}, {})
    verified = {"devices": list(DEVICES), "seconds": 60.0, "blocks": EXTENT_BYTES // BLOCK_BYTES}
    guests[VERIFIER] = (VERIFY, verified, {"virtio_console": TERMINAL, "rng": ENTROPY})
    lines = ["[topology]", 'name = "compare"', f"run_dir = {json.dumps(str(base / 'run'))}", 'lease = "2s"']
    lines += [f"[hypervisor.{HYPERVISOR}]", f"[controller.{TERMINAL}]", 'kind = "console"', f'driver = "{driver}"']
    lines += [f"[controller.{ENTROPY}]", 'kind = "rng"', f'driver = "{driver}"']
    lines += [f"[driver_domain.{driver}]"] if driver != "native" else []
    image, size = json.dumps(str(base / "disk.img")), len(guests) * EXTENT_BYTES
    lines += [f"[controller.{DISK}]", 'kind = "block"', f"image = {image}", f"size = {size}", f'driver = "{driver}"']
    for at, name in enumerate(guests):
        lines.append(f"extents.{name} = {{ offset = {at * EXTENT_BYTES}, size = {EXTENT_BYTES} }}")
    for name, (script, parameters, devices) in guests.items():
        lines += [f"[guest.{name}]", 'kind = "script"', f'hypervisor = "{HYPERVISOR}"', 'restart = "never"']
        lines += [f'script = "{script}"', f'devices.disk = "{DISK}/{name}"']
        lines += [f"devices.{device} = {json.dumps(controller)}" for device, controller in devices.items()]
        lines += [f"parameters.{key} = {json.dumps(value)}" for key, value in parameters.items()]
    return "\n".join(lines) + "\n"


def written_ranges() -> list[tuple[int, int]]:
    """Begin and end, in bytes of the image, of what guests fill: extents are in the order of the loads."""
    return [(at * EXTENT_BYTES, (at + 1) * EXTENT_BYTES) for at, load in enumerate(LOADS) if load.fills]


def placement_json(results: Mapping[str, PlacementResult]) -> dict[str, Any]:
    """The whole comparison as one object."""
    return {
        "ok": all(not result.problems for result in results.values()),
        "block_bytes": BLOCK_BYTES,
        "placements": {name: _result_json(result) for name, result in results.items()},
    }


def _result_json(result: PlacementResult) -> dict[str, Any]:
    kill = result.kill
    return {
        "loads": {name: _load_json(load) for name, load in result.loads.items()},
        "kill": {
            "process": kill.process,
            "devices": list(kill.devices),
            "pause_ms": dict(kill.pause_ms),
            "resubmitted": kill.resubmitted,
            "checked": kill.checked,
            "errors": kill.errors,
        },
        "device_processes": result.device_processes,
        "device_rss_bytes": result.device_rss_bytes,
        "processes_of_three_devices": result.all_processes,
        "hypervisor_side": {"classes": list(result.hypervisor_side.names), "lines": result.hypervisor_side.lines},
        "device_side": {"classes": list(result.device_side.names), "lines": result.device_side.lines},
        "host_drivers": list(result.host_drivers),
        "sha256": result.sha256,
        "problems": list(result.problems),
    }


def _load_json(load: LoadResult) -> dict[str, Any]:
    return {
        "requests": load.requests,
        "iops": load.iops,
        "p50_us": load.p50_us,
        "p99_us": load.p99_us,
        "failed": load.failed,
        "messages_per_request": load.messages,
        "processes": load.processes,
        "cpu_us_per_request": dict(load.cpu_us),
    }
