"""An initialised 8259 pair, for its tests."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair

MASTER_BASE, SLAVE_BASE = 0x20, 0x28
NONSPECIFIC_EOI, ROTATE_ON_EOI, ROTATE_IN_AEOI, SET_PRIORITY, SPECIFIC_EOI = 0x20, 0xA0, 0x80, 0xC0, 0x60
READ_IRR, READ_ISR, POLL, SET_SPECIAL_MASK, CLEAR_SPECIAL_MASK = 0x0A, 0x0B, 0x0C, 0x68, 0x48


class Bench:
    """A pair with its INTR recorded and its ports by name."""

    def __init__(self, latch_edges: bool = True) -> None:
        self.intr = False
        self.pic = Pic8259Pair(self._set_intr, latch_edges)

    def _set_intr(self, level: bool) -> None:
        self.intr = level

    def master(self, a0: int, value: int) -> None:
        """Write a port of the master."""
        self.pic.master_ports.write(a0, 1, value, 0)

    def slave(self, a0: int, value: int) -> None:
        """Write a port of the slave."""
        self.pic.slave_ports.write(a0, 1, value, 0)

    def master_reads(self, ocw3: int) -> int:
        """Give the master an OCW3, then read its even port."""
        self.master(0, ocw3)
        return self.pic.master_ports.read(0, 1, 0)

    def slave_reads(self, ocw3: int) -> int:
        """Give the slave an OCW3, then read its even port."""
        self.slave(0, ocw3)
        return self.pic.slave_ports.read(0, 1, 0)

    def initialise(self, icw1: int = 0x11, icw4_master: int = 0x01, icw4_slave: int = 0x01) -> None:
        """Send ICW1 to ICW4 to both chips, as PC firmware does."""
        for write, words in (
            (self.master, (MASTER_BASE, 0x04, icw4_master)),
            (self.slave, (SLAVE_BASE, 0x02, icw4_slave)),
        ):
            write(0, icw1)
            for word in words:
                write(1, word)

    def pulse(self, *irqs: int) -> None:
        """Raise and lower each input once."""
        for irq in irqs:
            self.pic.set_irq(irq, True)
            self.pic.set_irq(irq, False)

    def take(self, count: int) -> list[int]:
        """Run this many acknowledge cycles; return their vectors."""
        return [self.pic.acknowledge() for _ in range(count)]
