"""Backends and surroundings of a machine under test."""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.machines.machine import MachineParts
from iovirt_dist.wire.messages import PowerAction

WALL_NS = 1_794_000_000_000_000_000


class Disk:
    """A disk that keeps its requests."""

    size_bytes = 1 << 20
    block_bytes = 512
    read_only = False
    serial = "DISK"

    def __init__(self) -> None:
        self.requests: list[DiskRequest] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.requests.append(request)


class Screen:
    """A terminal that always has room."""

    def __init__(self) -> None:
        self.shown = b""

    def transmit(self, data: bytes) -> None:
        """Show."""
        self.shown += data

    def space(self) -> int:
        """Room."""
        return 4096


class Surroundings:
    """What a machine is built from, and what it did with it."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.screen = Screen()
        self.power: list[tuple[PowerAction, str]] = []

    def parts(self, *, disk: bool = True) -> MachineParts:
        """The parts."""
        return MachineParts(
            "alice",
            32 << 20,
            self.disk if disk else None,
            self.screen,
            WALL_NS,
            lambda action, reason: self.power.append((action, reason)),
        )
