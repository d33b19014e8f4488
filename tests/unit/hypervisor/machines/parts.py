"""Backends and surroundings of a machine under test."""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.machines.machine import MachineParts
from iovirt_dist.platform.level import Level
from iovirt_dist.wire.codec import Buffer
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


class Dice:
    """A source of entropy that is never thrown."""

    def request(self, tag: int, length: int) -> None:
        """Take a request."""


class Wire:
    """A network that ends here."""

    mac = bytes(6)
    mtu = 1500
    link_up = False

    def transmit(self, frame: Buffer) -> None:
        """Drop a frame."""


class Surroundings:
    """What a machine is built from, and what it did with it."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.screen = Screen()
        self.power: list[tuple[PowerAction, str]] = []

    def parts(
        self, *, disk: bool = True, level: Level = Level.OPERATION, virtio: bool = False, serial: bool = True
    ) -> MachineParts:
        """The parts: a disk at its level, and on demand a backend for every other virtio device."""
        return MachineParts(
            "alice",
            32 << 20,
            self.disk if disk else None,
            self.screen,
            WALL_NS,
            lambda action, reason: self.power.append((action, reason)),
            level,
            console=Screen() if virtio else None,
            entropy=Dice() if virtio else None,
            network=Wire() if virtio else None,
            terminal_connected=serial,
        )
