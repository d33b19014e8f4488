"""A VMM's requests through crashes and cuts of everything around it, in virtual time.

Whatever happens in whatever order: each request ends once and well, what is read is what was written last, and the disk
is as the driver knows it. A write of an earlier life that comes late, a descriptor that is skipped or used twice, or a
completion without an interrupt would show.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from iovirt_dist.faults.link import Faults
from iovirt_dist.virtio.block import BlockRequest
from tests.unit.gateway.vm_rig import BLOCK, DISK, GATEWAY, HYPERVISOR, SECTOR_BYTES, SIZE, VmRig

SECTORS = 64
SLOTS = SIZE // 3
MS = 1_000_000
LEASE_MS = 500
BAD_LINK = Faults(delay_ns=(20_000, 200_000), loss=0.05, duplicate=0.05, reorder=0.05)
STEPS = {
    "offer": 40,
    "kick": 20,
    "run": 25,
    "crash_gateway": 3,
    "crash_hypervisor": 3,
    "crash_controller": 3,
    "share_memory": 2,
    "stop_and_start": 2,
    "cut": 2,
}
"""What may happen, and how often."""


class Asked(NamedTuple):
    """A request under way: where its data is, and what it is."""

    slot: int
    kind: BlockRequest
    sector: int
    data: bytes


class Story:
    """One rig and what happens to it.

    Args:
        seed: Of everything.
    """

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.model = [dice.randbytes(SECTOR_BYTES) for _ in range(SECTORS)]
        self.rig = VmRig(
            b"".join(self.model),
            faults=dice.choice([None, BAD_LINK]),
            seed=seed,
            storage_ns=dice.choice([0, MS // 10, 2 * MS]),
            lease_ms=LEASE_MS,
        )
        self.vmm = self.rig.vmm
        self.under_way: dict[int, Asked] = {}
        self.free = list(range(SLOTS))
        self.done = self.calls = 0
        self.rig.connect()

    def happen(self, steps: int) -> None:
        """Let so many things happen."""
        for step in self.dice.choices(list(STEPS), list(STEPS.values()), k=steps):
            getattr(self, step)()
            self.take_used()

    def end(self) -> None:
        """Let everything come to rest; the driver relies on interrupts from here on."""
        self.rig.run_until(lambda: self.vmm.started, 20_000 * MS, "start of the queue")
        self.vmm.kick()
        self.take_used()
        while self.under_way:
            if self.vmm.driver.enable_interrupts():
                self.take_used()
                continue
            calls = self.vmm.calls
            self.rig.run_until(lambda calls=calls: self.vmm.calls > calls, 20_000 * MS, "interrupt")  # type: ignore[misc]  # mypy does not type lambda defaults
            self.take_used()

    def take_used(self) -> None:
        """Check what is done."""
        for head, _ in self.vmm.driver.take_used():
            asked = self.under_way.pop(head)
            assert self.vmm.status(asked.slot) == 0
            if asked.kind is BlockRequest.OUT:
                self.model[asked.sector] = asked.data
            elif asked.kind is BlockRequest.IN:
                assert self.vmm.data(asked.slot, SECTOR_BYTES) == self.model[asked.sector]
            self.free.append(asked.slot)
            self.done += 1

    # --- what may happen

    def offer(self) -> None:
        """Requests on sectors that no other is on: what a file system does that knows what it wants."""
        busy = {asked.sector for asked in self.under_way.values()}
        idle = [sector for sector in range(SECTORS) if sector not in busy]
        for _ in range(self.dice.randrange(1, 8)):
            if not self.free or self.vmm.driver.free < 3 or not idle:
                return
            kind = self.dice.choice([BlockRequest.IN, BlockRequest.OUT, BlockRequest.OUT, BlockRequest.FLUSH])
            sector = idle.pop(self.dice.randrange(len(idle)))
            data = self.dice.randbytes(SECTOR_BYTES) if kind is BlockRequest.OUT else b""
            slot = self.free.pop()
            asked = Asked(slot, kind, sector, data)
            wanted: bytes | int = SECTOR_BYTES if kind is BlockRequest.IN else data
            self.under_way[self.vmm.offer(slot, kind, sector, wanted)] = asked

    def kick(self) -> None:
        """The driver notifies."""
        self.vmm.kick()

    def run(self) -> None:
        """Time passes."""
        self.rig.run_for(self.dice.randrange(MS // 100, 3 * MS))

    def crash_gateway(self) -> None:
        """SIGKILL, and a new life, to which the front end connects."""
        self.rig.restart_gateway()

    def crash_hypervisor(self) -> None:
        """SIGKILL, and a new life, at once or later."""
        self.rig.kill(HYPERVISOR)
        self.rig.run_for(self.dice.choice([0, 0, 10 * MS]))
        self.rig.start(HYPERVISOR)

    def crash_controller(self) -> None:
        """SIGKILL, and a new life."""
        self.rig.restart(BLOCK)

    def share_memory(self) -> None:
        """The VMM sends its memory table once more."""
        self.vmm.share_memory()

    def stop_and_start(self) -> None:
        """The VMM is paused and goes on."""
        if not self.vmm.started:
            return
        self.vmm.replies.clear()
        self.vmm.stop_queue()
        self.rig.run_until(lambda: bool(self.vmm.replies), 20_000 * MS, "answer to GET_VRING_BASE")
        self.vmm.start_queue()

    def cut(self) -> None:
        """A link loses everything, for a moment or for longer than the lease."""
        link = self.dice.choice([(GATEWAY, HYPERVISOR), (HYPERVISOR, BLOCK)])
        self.rig.cut(*link)
        self.rig.run_for(self.dice.choice([10, 3 * LEASE_MS]) * MS)
        self.rig.heal(*link)


@pytest.mark.parametrize("seed", range(24))
def test_requests_of_a_vmm_survive_whatever_happens_around_it(seed: int) -> None:
    """None is lost or doubled or comes late, and every one is told."""
    story = Story(seed)

    story.happen(60)
    story.end()

    assert story.done > 0
    assert bytes(story.rig.storage.stable) == b"".join(story.model)
    assert list(story.rig.gateway.core.devices[DISK].faults) == []
