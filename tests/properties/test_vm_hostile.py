"""A hostile VMM: rings, logs and messages that are damaged while its gateway works on them.

Whatever it does, the gateway's core raises nothing, its hypervisor and controller go on, and the VMM is served as soon
as it behaves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.gateway.vhost_user.messages import Request
from iovirt_dist.virtio.block import BlockRequest
from tests.properties.amount import PER_EXAMPLE, examples
from tests.unit.gateway.vhost_user.front_end import message, number, state
from tests.unit.gateway.vm_rig import DISK, GATEWAY, HYPERVISOR, INFLIGHT_FILE, SECTOR_BYTES, SIZE, VmRig

EXAMPLES = max(examples(2000) // 10, 20)
"""A tenth: each is a whole system. `test_vhost_user_hostile` and `test_virtio_fuzz` give its parts the full amount."""

CONTENT = bytes(range(256)) * 128
MS = 1_000_000
NO_STATUS = 255
EDGES = (0, 1, SIZE - 1, SIZE, 0x7FFF, 0x8000, 0xFFFF)
LONG_EDGES = (0, 1, 0x8000_0000, 0x8000_1000, 0x803F_FFFF, 0x8040_0000, (1 << 63), (1 << 64) - 1)


class Attacker:
    """One VMM and what it does.

    Args:
        seed: Of its luck.
    """

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.rig = VmRig(CONTENT)
        self.vmm = self.rig.vmm
        self.rig.connect()
        self.ways: list[tuple[Callable[[], None], int]] = [
            (self.available_index, 6),
            (self.available_head, 6),
            (self.descriptor, 10),
            (self.used_index, 2),
            (self.log, 6),
            (self.anywhere, 4),
            (self.request, 10),
            (self.message, 4),
            (self.kick, 20),
            (self.run, 20),
            (self.start_over, 3),
            (self.new_gateway, 1),
            (self.new_hypervisor, 1),
        ]

    def attack(self, inputs: int) -> None:
        """Do so many things."""
        ways, weights = zip(*self.ways, strict=True)
        for way in self.dice.choices(ways, weights, k=inputs):
            way()

    def behave(self) -> None:
        """Power on, connect, and read a sector."""
        self.vmm.disconnect()
        self.vmm.power_on()
        self.rig.connect()
        head = self.vmm.offer(0, BlockRequest.IN, 7, SECTOR_BYTES)
        self.vmm.kick()
        self.rig.run_until(lambda: self.vmm.status(0) != NO_STATUS, what="answer")
        self.rig.settle()
        assert [used for used, _ in self.vmm.driver.take_used()] == [head]
        assert self.vmm.status(0) == 0
        assert self.vmm.data(0, SECTOR_BYTES) == CONTENT[7 * SECTOR_BYTES : 8 * SECTOR_BYTES]

    # --- what it may do

    def _write(self, address: int, layout: str, *values: int) -> None:
        self.vmm.memory.write(address, struct.pack(layout, *values))

    def _edge(self) -> int:
        return self.dice.choice(EDGES)

    def available_index(self) -> None:
        """Make more available than there is."""
        self._write(self.vmm.setup.driver_area + 2, "<H", self._edge())

    def available_head(self) -> None:
        """Make something else available."""
        self._write(self.vmm.setup.driver_area + 4 + 2 * self.dice.randrange(SIZE), "<H", self._edge())

    def descriptor(self) -> None:
        """Damage a descriptor: addresses, lengths, flags, chains."""
        at = self.vmm.setup.descriptors + 16 * self.dice.randrange(SIZE)
        length = self.dice.choice((0, 1, 15, 16, 512, 0xFFFF_FFFF))
        self._write(at, "<QIHH", self.dice.choice(LONG_EDGES), length, self.dice.randrange(16), self._edge())

    def used_index(self) -> None:
        """Write what is the device's to write."""
        self._write(self.vmm.setup.device_area + 2, "<H", self._edge())

    def log(self) -> None:
        """Damage the log of requests in flight."""
        memory = self.vmm.mapper.files.get(INFLIGHT_FILE)
        if memory is not None:
            memory[self.dice.randrange(len(memory))] = self.dice.randrange(256)

    def anywhere(self) -> None:
        """Write anything into the ring's page."""
        self._write(self.vmm.setup.descriptors + self.dice.randrange(0x1000), "<B", self.dice.randrange(256))

    def request(self) -> None:
        """A request, mostly a sound one."""
        if self.vmm.driver.free >= 3:
            kind = self.dice.choice([BlockRequest.IN, BlockRequest.FLUSH, BlockRequest.DISCARD])
            length = self.dice.choice((0, 1, SECTOR_BYTES)) if kind is BlockRequest.IN else b""
            self.vmm.offer(self.dice.randrange(8), kind, self.dice.choice((0, 3, 1 << 40)), length)

    def message(self) -> None:
        """A message that is sound by itself, at any time."""
        self.vmm.send(
            self.dice.choice(
                (
                    state(Request.GET_VRING_BASE, 0, 0),
                    state(Request.SET_VRING_ENABLE, 0, self.dice.randrange(2)),
                    state(Request.SET_VRING_BASE, 0, self._edge()),
                    number(Request.SET_STATUS, self.dice.randrange(256)),
                    message(Request.RESET_DEVICE),
                    message(Request.RESET_OWNER),
                )
            )
        )

    def kick(self) -> None:
        """Notify."""
        self.vmm.kick()

    def run(self) -> None:
        """Time passes."""
        self.rig.run_for(self.dice.randrange(MS))

    def start_over(self) -> None:
        """Connect anew, with the memory as it is."""
        self.vmm.disconnect()
        self.vmm.connect()

    def new_gateway(self) -> None:
        """Whoever comes next finds memory and log as they are."""
        self.rig.restart_gateway()

    def new_hypervisor(self) -> None:
        """So does the next hypervisor."""
        self.rig.restart(HYPERVISOR)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32))
def test_hostile_vmm_harms_nobody_and_is_served_once_it_behaves(seed: int) -> None:
    """Each thing that it does is an input."""
    attacker = Attacker(seed)

    attacker.attack(PER_EXAMPLE)
    attacker.behave()

    assert attacker.rig.hypervisor.core.guests[GATEWAY].vm.counts.malformed == 0
    assert attacker.rig.gateway.core.devices[DISK].connected
