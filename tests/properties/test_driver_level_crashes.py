"""A driver's requests through crashes, cuts, pauses and resets of everything around it, in virtual time.

Whatever happens in whatever order: the request that a driver offered is done, once, with the data of its place on the
disk, unless the driver or the machine was reset; both sides count the same traps; and nothing is malformed.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from iovirt_dist.faults.link import Faults
from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.testing.rig import BLOCK, HYPERVISOR, Rig
from iovirt_dist.virtio.block import BlockRequest
from iovirt_dist.virtio.mmio import Register
from tests.unit.testing.virtio_driver import DATA, SECTOR_BYTES, VirtioDisk

SECTORS = 2048
REQUESTS = 40
MS = 1_000_000
LEASE_MS = 500
BAD_LINK = Faults(delay_ns=(20_000, 200_000), loss=0.05, duplicate=0.05, reorder=0.05)
STEPS = {
    "offer": 40,
    "notify": 20,
    "run": 20,
    "interrupt_late": 6,
    "reset_device": 3,
    "reset_machine": 2,
    "crash_controller": 2,
    "crash_hypervisor": 2,
    "cut": 2,
    "pause": 2,
}
"""What may happen, and how often."""


class Offered(NamedTuple):
    """A request under way: its place in memory, and what it is."""

    number: int
    kind: BlockRequest
    sector: int
    sectors: int


class Story:
    """One rig and what happens to it.

    Args:
        seed: Of everything.
    """

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.content = dice.randbytes(SECTORS * SECTOR_BYTES)
        self.rig = Rig(
            machine="virt",
            disk=self.content,
            level=Level.DRIVER,
            faults=dice.choice([None, BAD_LINK]),
            seed=seed,
            storage_ns=dice.choice([0, MS // 10, MS]),
            memory_bytes=8 << 20,
            lease_ms=LEASE_MS,
        )
        self.guest = self.rig.guest()
        self.done = 0
        self.reset_device()

    def happen(self, steps: int) -> None:
        """Let so many things happen; the driver starts over when its machine does."""
        for step in self.dice.choices(list(STEPS), list(STEPS.values()), k=steps):
            try:
                getattr(self, step)()
                self.take_used()
            except BusClosedError:
                self.wait_power_on()

    def end(self) -> None:
        """Let everything come to rest."""
        self.disk.notify()
        self.rig.run_for(5000 * MS)  # who is lost is asked again every two seconds
        self.rig.settle()
        self.take_used()

    def wait_power_on(self) -> None:
        """The machine starts over."""
        self.rig.run_until(lambda: self.guest.interrupted, what="power-on")
        self.guest.take_power_on()
        self.reset_device()

    def take_used(self) -> None:
        """Check what is done."""
        for head, _ in self.disk.driver.take_used():
            number, kind, sector, sectors = self.under_way.pop(head)
            assert self.disk.status(number) == 0
            if kind is BlockRequest.IN:
                assert self.disk.data(number, sectors * SECTOR_BYTES) == self._at(sector, sectors)
            self.free.append(number)
            self.done += 1

    # --- what may happen

    def offer(self) -> None:
        """Reads, and writes of what is there already."""
        for _ in range(self.dice.randrange(1, 10)):
            if not self.free or self.disk.driver.free < 3:
                return
            kind = self.dice.choice([BlockRequest.IN, BlockRequest.IN, BlockRequest.OUT])
            one = Offered(self.free.pop(), kind, self.dice.randrange(SECTORS - 8), self.dice.randrange(1, 8))
            if kind is BlockRequest.OUT:
                self.disk.memory.write(DATA + 0x1_0000 * one.number, self._at(one.sector, one.sectors))
            head = self.disk.offer(one.number, kind, one.sector, one.sectors * SECTOR_BYTES)
            self.under_way[head] = one

    def notify(self) -> None:
        """The driver rings the doorbell."""
        self.disk.notify()

    def run(self) -> None:
        """Time passes."""
        self.rig.run_for(self.dice.randrange(MS // 100, 3 * MS))

    def interrupt_late(self) -> None:
        """The driver wants an interrupt only after it rang."""
        self.disk.driver.disable_interrupts()
        self.disk.notify()
        self.disk.driver.enable_interrupts()

    def reset_device(self) -> None:
        """The driver resets the device, waits until it is (VIRTIO 1.2, section 4.2.2.2), and starts over."""
        self.guest.store(virt.VIRTIO_BASE + Register.STATUS, 4, 0)
        assert self.guest.load(virt.VIRTIO_BASE + Register.STATUS, 4) == 0
        self.disk = VirtioDisk(self.guest)
        self.under_way: dict[int, Offered] = {}
        self.free = list(range(REQUESTS))

    def reset_machine(self) -> None:
        """The guest resets its machine, and its CPU goes on until it hears of that."""
        self.guest.store(virt.TEST_BASE, 4, virt.REBOOT_VALUE)
        self.disk.notify()
        self.wait_power_on()

    def crash_controller(self) -> None:
        """SIGKILL, and a new life."""
        self.rig.restart(BLOCK)

    def crash_hypervisor(self) -> None:
        """SIGKILL, and a new life: the machine starts over."""
        self.rig.restart(HYPERVISOR)
        self.wait_power_on()

    def cut(self) -> None:
        """A link loses everything, for a moment or for longer than the lease."""
        link = self.dice.choice([(self.guest.name, HYPERVISOR), (HYPERVISOR, BLOCK)])
        self.rig.cut(*link)
        self.rig.run_for(self.dice.choice([10, 3 * LEASE_MS]) * MS)
        self.rig.heal(*link)

    def pause(self) -> None:
        """SIGSTOP, for a moment or for longer than the lease."""
        node = self.dice.choice([HYPERVISOR, BLOCK])
        self.rig.suspend(node)
        self.rig.run_for(self.dice.choice([10, 2 * LEASE_MS]) * MS)
        self.rig.resume(node)

    def _at(self, sector: int, sectors: int) -> bytes:
        return self.content[sector * SECTOR_BYTES : (sector + sectors) * SECTOR_BYTES]


@pytest.mark.parametrize("seed", range(12))
def test_requests_of_a_driver_survive_whatever_happens_around_it(seed: int) -> None:
    """None is lost or doubled, and no trap is uncounted."""
    story = Story(seed)

    story.happen(40)
    story.end()

    vm = story.rig.vm()
    assert story.under_way == {}
    assert story.done > 0
    assert story.guest.core.counts.traps == vm.counts.traps
    assert vm.counts.malformed == 0
    assert story.rig.disk == story.content
