"""An ATA channel on the test bench: a disk backend that waits, and the accesses that a driver makes."""

from __future__ import annotations

import struct

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.wire.commands import Opcode, Status

DATA, ERROR, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, STATUS_REGISTER, COMMAND = 0, 1, 1, 2, 3, 4, 5, 6, 7, 7
LBA = 0x40
READY = 0x50
"""DRDY and the obsolete DSC."""
SECTORS = 20_000


class Medium:
    """A disk backend that keeps its requests until the test completes them."""

    block_bytes = 512
    serial = "OIV0001"

    def __init__(self, sectors: int = SECTORS, read_only: bool = False) -> None:
        self.size_bytes = sectors * 512
        self.read_only = read_only
        self.requests: list[DiskRequest] = []
        self.edges: list[bool] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.requests.append(request)

    def irq(self, level: bool) -> None:
        """Record INTRQ."""
        self.edges.append(level)


def pattern(first: int, count: int) -> bytes:
    """Sectors whose bytes tell their address."""
    return b"".join(struct.pack("<Q", sector) * 64 for sector in range(first, first + count))


class Bench:
    """A channel with a medium, and the accesses that a driver makes."""

    def __init__(self, sectors: int = SECTORS, read_only: bool = False) -> None:
        self.medium = Medium(sectors, read_only)
        self.channel = AtaChannel(self.medium.irq, self.medium)

    @property
    def level(self) -> bool:
        """INTRQ now."""
        return bool(self.medium.edges) and self.medium.edges[-1]

    def out(self, register: int, value: int) -> None:
        """OUT of a byte to the command block."""
        self.channel.write(register, 1, value, 0)

    def inp(self, register: int) -> int:
        """IN of a byte from the command block."""
        return self.channel.read(register, 1, 0)

    def control(self, value: int) -> None:
        """OUT to Device Control."""
        self.channel.control.write(0, 1, value, 0)

    def alternate(self) -> int:
        """IN from Alternate Status."""
        return self.channel.control.read(0, 1, 0)

    def command(self, code: int, lba: int = 0, count: int = 1, features: int = 0) -> None:
        """Issue a command with a 28-bit address."""
        self.out(FEATURES, features)
        self.out(COUNT, count & 0xFF)
        self.out(LOW, lba & 0xFF)
        self.out(MID, lba >> 8 & 0xFF)
        self.out(HIGH, lba >> 16 & 0xFF)
        self.out(DEVICE, 0xA0 | LBA | lba >> 24)
        self.out(COMMAND, code)

    def command_ext(self, code: int, lba: int, count: int) -> None:
        """Issue a command with a 48-bit address, high bytes first."""
        for shift in (1, 0):
            self.out(COUNT, count >> 8 * shift & 0xFF)
            self.out(LOW, lba >> 24 * shift & 0xFF)
            self.out(MID, lba >> 24 * shift + 8 & 0xFF)
            self.out(HIGH, lba >> 24 * shift + 16 & 0xFF)
        self.out(DEVICE, LBA)
        self.out(COMMAND, code)

    def finish(self, status: Status = Status.OK) -> DiskRequest:
        """Complete the last request, reads with their pattern."""
        request = self.medium.requests[-1]
        good_read = request.opcode is Opcode.READ and status is Status.OK
        data = pattern(request.offset // 512, request.length // 512) if good_read else b""
        self.channel.complete(request.tag, status, data, 0)
        return request

    def pull(self, length: int) -> bytes:
        """REP INSW."""
        return self.channel.read_string(DATA, 2, length // 2, 0)

    def push(self, data: bytes) -> None:
        """REP OUTSW."""
        self.channel.write_string(DATA, 2, data, 0)

    def identity(self) -> tuple[int, ...]:
        """Words of IDENTIFY DEVICE."""
        self.command(0xEC)
        return struct.unpack("<256H", self.pull(512))
