"""A guest's ATA driver for tests: PIO with interrupts through the 8259 pair (ATA/ATAPI-6, sections 9.5 and 9.6)."""

from __future__ import annotations

from iovirt_dist.testing.guest import RigGuest

SECTOR_BYTES = 512
_DATA, _COUNT, _LBA, _DEVICE, _STATUS = 0x1F0, 0x1F2, 0x1F3, 0x1F6, 0x1F7
READ_SECTORS, WRITE_SECTORS = 0x20, 0x30
_BSY, _DRQ, _ERR = 0x80, 0x08, 0x01
_VECTOR = 0x76


class AtaDriver:
    """Reads and writes sectors of a rig guest's disk.

    Args:
        guest: Its bus; a `pc`.
    """

    def __init__(self, guest: RigGuest) -> None:
        self._guest = guest
        for base, vector, wiring in ((0x20, 0x08, 4), (0xA0, 0x70, 2)):
            guest.outb(base, 0x11)
            for word in (vector, wiring, 0x01):
                guest.outb(base + 1, word)
        guest.outb(0x21, 0xFB)
        guest.outb(0xA1, 0xBF)

    def read(self, sector: int, count: int) -> bytes:
        """READ SECTORS: an interrupt in front of each sector."""
        self.command(READ_SECTORS, sector, count)
        return b"".join(self.read_block() for _ in range(count))

    def write(self, sector: int, data: bytes) -> None:
        """WRITE SECTORS: an interrupt behind each sector, the last one when all is stable."""
        guest = self._guest
        self.command(WRITE_SECTORS, sector, len(data) // SECTOR_BYTES)
        while guest.inb(0x3F6) & (_BSY | _DRQ) != _DRQ:
            pass
        for at in range(0, len(data), SECTOR_BYTES):
            guest.outsw(_DATA, data[at : at + SECTOR_BYTES])
            self._interrupt()

    def command(self, code: int, sector: int, count: int) -> None:
        """Write the task file, the command last."""
        guest = self._guest
        guest.outb(_DEVICE, 0xE0 | sector >> 24)
        guest.outb(_COUNT, count)
        for at in range(3):
            guest.outb(_LBA + at, sector >> 8 * at & 0xFF)
        guest.outb(_STATUS, code)

    def read_block(self) -> bytes:
        """Move the next sector of a READ SECTORS command."""
        self._interrupt()
        return self._guest.insw(_DATA, SECTOR_BYTES // 2)

    def _interrupt(self) -> None:
        """Wait for INTR, acknowledge, read Status, and end the interrupt."""
        guest = self._guest
        guest.wait_interrupt()
        assert guest.acknowledge_interrupt() == _VECTOR
        assert not guest.inb(_STATUS) & _ERR
        guest.outb(0xA0, 0x20)
        guest.outb(0x20, 0x20)
