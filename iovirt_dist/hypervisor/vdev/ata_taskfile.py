"""The command block registers of an ATA device, the commands it knows, and how both name sectors.

ATA/ATAPI-6 (T13 1410D): registers in section 7, 28- and 48-bit addresses in 6.2, commands in 8.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from iovirt_dist.hypervisor.vdev.ata_identify import LBA28_SECTORS, Geometry
from iovirt_dist.hypervisor.vdev.device import State

FEATURES, COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE = 1, 2, 3, 4, 5, 6
"""Offsets from the command block's base; 1 reads as Error, 0 is Data and 7 Status and Command."""

DEVICE_LBA, DEVICE_ONE = 0x40, 0x10
"""Device register: addresses are logical; device 1 is selected (clause 7)."""


class Kind(enum.Enum):
    """What a command does."""

    READ = enum.auto()
    WRITE = enum.auto()
    VERIFY = enum.auto()
    SEEK = enum.auto()
    FLUSH = enum.auto()
    IDENTIFY = enum.auto()
    DIAGNOSE = enum.auto()
    SET_MULTIPLE = enum.auto()
    SET_FEATURES = enum.auto()
    SET_GEOMETRY = enum.auto()
    RECALIBRATE = enum.auto()
    IDLE = enum.auto()
    STANDBY = enum.auto()
    SLEEP = enum.auto()
    CHECK_POWER = enum.auto()
    ABORT = enum.auto()


class CommandSpec(NamedTuple):
    """A row of the command table.

    Attributes:
        kind: What the command does.
        extended: Addresses and counts are of 48 and 16 bits.
        multiple: Data moves in blocks of SET MULTIPLE MODE's size instead of single sectors.
    """

    kind: Kind
    extended: bool = False
    multiple: bool = False


ABORTED = CommandSpec(Kind.ABORT)
"""Any command that is not in the table: packet, DMA, SMART, security and the rest; NOP and DEVICE RESET are there."""

COMMANDS: dict[int, CommandSpec] = {
    0x00: ABORTED,  # NOP: always aborts, which is its use (clause 8)
    0x08: ABORTED,  # DEVICE RESET: packet devices only (clause 8)
    **dict.fromkeys(range(0x10, 0x20), CommandSpec(Kind.RECALIBRATE)),  # ATA-3, for old drivers
    0x20: CommandSpec(Kind.READ),
    0x21: CommandSpec(Kind.READ),  # without retries: ATA-4
    0x24: CommandSpec(Kind.READ, extended=True),
    0x29: CommandSpec(Kind.READ, extended=True, multiple=True),
    0x30: CommandSpec(Kind.WRITE),
    0x31: CommandSpec(Kind.WRITE),
    0x34: CommandSpec(Kind.WRITE, extended=True),
    0x39: CommandSpec(Kind.WRITE, extended=True, multiple=True),
    0x40: CommandSpec(Kind.VERIFY),
    0x41: CommandSpec(Kind.VERIFY),
    0x42: CommandSpec(Kind.VERIFY, extended=True),
    0x70: CommandSpec(Kind.SEEK),
    0x90: CommandSpec(Kind.DIAGNOSE),
    0x91: CommandSpec(Kind.SET_GEOMETRY),
    **dict.fromkeys((0x94, 0x96, 0xE0, 0xE2), CommandSpec(Kind.STANDBY)),
    **dict.fromkeys((0x95, 0x97, 0xE1, 0xE3), CommandSpec(Kind.IDLE)),
    **dict.fromkeys((0x98, 0xE5), CommandSpec(Kind.CHECK_POWER)),
    **dict.fromkeys((0x99, 0xE6), CommandSpec(Kind.SLEEP)),
    0xC4: CommandSpec(Kind.READ, multiple=True),
    0xC5: CommandSpec(Kind.WRITE, multiple=True),
    0xC6: CommandSpec(Kind.SET_MULTIPLE),
    0xE7: CommandSpec(Kind.FLUSH),
    0xEA: CommandSpec(Kind.FLUSH, extended=True),
    0xEC: CommandSpec(Kind.IDENTIFY),
    0xEF: CommandSpec(Kind.SET_FEATURES),
}

EXECUTE_DEVICE_DIAGNOSTIC = 0x90
"""The one command that both devices of a channel take whichever is selected (clause 8)."""


class Sectors(NamedTuple):
    """A run of sectors.

    Attributes:
        first: Logical block address.
        length: Sectors, 1 or more.
    """

    first: int
    length: int


class TaskFile:
    """The registers that name a command's operands; the byte written before the last is kept for 48-bit commands."""

    def __init__(self) -> None:
        self._now = bytearray(8)
        self._before = bytearray(8)

    @property
    def features(self) -> int:
        """The Features register."""
        return self._now[FEATURES]

    @property
    def count(self) -> int:
        """The Sector Count register."""
        return self._now[COUNT]

    @property
    def device(self) -> int:
        """The Device register as written."""
        return self._now[DEVICE]

    @property
    def is_device_one(self) -> bool:
        """Whether device 1 is selected."""
        return bool(self._now[DEVICE] & DEVICE_ONE)

    def read(self, register: int, high_order: bool) -> int:
        """Read a register 2..6, or with `high_order` (Device Control HOB) the byte written before (section 6.2.2)."""
        if register == DEVICE:
            return self._now[DEVICE] | 0xA0  # bits 7 and 5 are obsolete and always read 1 on real disks
        return (self._before if high_order else self._now)[register]

    def write(self, register: int, value: int) -> None:
        """Write a register 1..6; all but Device are two bytes deep."""
        self._before[register] = self._now[register]
        self._now[register] = value

    def set_count(self, value: int) -> None:
        """Let the Sector Count register show a result."""
        self._now[COUNT] = value

    def sign(self) -> None:
        """Put the signature of a device without packet commands in place (section 9.12)."""
        self._now[:] = bytes((0, 0, 1, 1, 0, 0, 0, 0))
        self._before[:] = bytes(8)

    def sectors(self, spec: CommandSpec, total_sectors: int, geometry: Geometry) -> Sectors | None:
        """Decode the run of sectors that the registers name.

        Returns:
            The run, or None if any of it is not on the disk (IDNF).
        """
        now, before = self._now, self._before
        if spec.extended:
            count = (before[COUNT] << 8 | now[COUNT]) or 65536
            low = now[LBA_LOW] | now[LBA_MID] << 8 | now[LBA_HIGH] << 16
            first = low | before[LBA_LOW] << 24 | before[LBA_MID] << 32 | before[LBA_HIGH] << 40
            limit = total_sectors
        else:
            count = 1 if spec.kind is Kind.SEEK else now[COUNT] or 256
            address = self._address28(geometry)
            if address is None:
                return None
            first = address
            limit = min(total_sectors, LBA28_SECTORS + 1 if now[DEVICE] & DEVICE_LBA else geometry.capacity)
        return Sectors(first, count) if first + count <= limit else None

    def _address28(self, geometry: Geometry) -> int | None:
        """The 28-bit or cylinder-head-sector address as a logical one; None outside the translation (section 6.2.1)."""
        now = self._now
        if now[DEVICE] & DEVICE_LBA:
            return now[LBA_LOW] | now[LBA_MID] << 8 | now[LBA_HIGH] << 16 | (now[DEVICE] & 0x0F) << 24
        cylinder, head, sector = now[LBA_MID] | now[LBA_HIGH] << 8, now[DEVICE] & 0x0F, now[LBA_LOW]
        if not 1 <= sector <= geometry.sectors or head >= geometry.heads or cylinder >= geometry.cylinders:
            return None
        return (cylinder * geometry.heads + head) * geometry.sectors + sector - 1

    def show_address(self, first: int, spec: CommandSpec, geometry: Geometry) -> None:
        """Let the address registers name a sector in the form that the command used: where an error is."""
        now, before = self._now, self._before
        if not spec.extended and not now[DEVICE] & DEVICE_LBA:
            track, sector = divmod(first, geometry.sectors)
            cylinder, head = divmod(track, geometry.heads)
            now[LBA_LOW], now[LBA_MID], now[LBA_HIGH] = sector + 1, cylinder & 0xFF, cylinder >> 8
            now[DEVICE] = now[DEVICE] & 0xF0 | head
            return
        now[LBA_LOW], now[LBA_MID], now[LBA_HIGH] = first & 0xFF, first >> 8 & 0xFF, first >> 16 & 0xFF
        if spec.extended:
            before[LBA_LOW], before[LBA_MID], before[LBA_HIGH] = first >> 24 & 0xFF, first >> 32 & 0xFF, first >> 40
        else:
            now[DEVICE] = now[DEVICE] & 0xF0 | first >> 24

    def state(self) -> State:
        """Both bytes of every register."""
        return {"now": bytes(self._now), "before": bytes(self._before)}

    def restore(self, state: State) -> None:
        """Take over a state."""
        self._now[:], self._before[:] = state["now"], state["before"]
