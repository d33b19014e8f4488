"""A driver's whole story with a virtio disk, told once for both machines; they differ in address and interrupt."""

from __future__ import annotations

from dataclasses import dataclass

from iovirt_dist.hypervisor.intercept.operation import perform
from iovirt_dist.hypervisor.machines.machine import Machine
from iovirt_dist.virtio.block import HEADER
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Status
from iovirt_dist.wire.messages import Trap, TrapKind
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, Doorbell
from tests.unit.hypervisor.machines.parts import Surroundings
from tests.unit.hypervisor.vdev.virtio_bench import LIVE, Offered, Returned, pack_requests, unpack_returned


@dataclass
class Story:
    """A machine, its surroundings, and where its virtio disk is.

    Attributes:
        machine: It.
        around: Its backends.
        base: Address of the disk's window.
    """

    machine: Machine
    around: Surroundings
    base: int

    def load(self, register: int) -> int:
        """Load a register."""
        trap = Trap(1, TrapKind.MMIO_LOAD, self.base + register, 4, 1, 0, 0)
        return perform(self.machine.address_map, trap, b"", 0).value

    def store(self, *writes: tuple[int, int]) -> None:
        """Store registers."""
        for register, value in writes:
            trap = Trap(1, TrapKind.MMIO_STORE, self.base + register, 4, 1, value, 0)
            perform(self.machine.address_map, trap, b"", 0)

    def arm(self) -> ArmQueue:
        """Negotiate and enable the queue as section 3.1.1 of VIRTIO 1.2 says; returns what the guest is told."""
        assert (self.load(Register.MAGIC_VALUE), self.load(Register.VERSION)) == (0x74726976, 2)
        assert self.load(Register.DEVICE_ID) == 2
        self.store((Register.STATUS, 1), (Register.STATUS, 3))
        self.store((Register.DRIVER_FEATURES_SEL, 1), (Register.DRIVER_FEATURES, 1))
        self.store((Register.DRIVER_FEATURES_SEL, 0), (Register.DRIVER_FEATURES, 1 << 9 | 1 << 29))
        self.store((Register.STATUS, 11), (Register.QUEUE_SEL, 0), (Register.QUEUE_NUM, 64))
        self.store((0x80, 0x1000), (0x90, 0x2000), (0xA0, 0x3000), (Register.QUEUE_READY, 1))
        self.store((Register.STATUS, LIVE))
        assert self.load(Register.STATUS) == LIVE
        (outgoing,) = self.machine.interceptors[0].flush(0)
        assert isinstance(outgoing.body, ArmQueue)
        return outgoing.body

    def read_two(self, arm: ArmQueue) -> tuple[Completions, list[Returned]]:
        """Read two sectors in one doorbell; returns the completions as they leave."""
        requests = [Offered(head, HEADER.pack(0, 0, 5 + head), 513) for head in range(2)]
        entries, payload = pack_requests(requests, arm.header_bytes)
        bell = Doorbell(arm.device, arm.queue, arm.generation, 1, 2, entries)
        assert self.machine.interceptors[0].message(bell, payload, 0)
        assert self.machine.disk is not None
        for request in self.around.disk.requests:
            self.machine.disk.complete(request.tag, Status.OK, bytes((request.offset >> 9,)) * 512, 0)
        (outgoing,) = self.machine.interceptors[0].flush(0)
        assert isinstance(outgoing.body, Completions)
        return outgoing.body, unpack_returned(outgoing.body, outgoing.payload)


READ_TWO = [Returned(0, b"\5" * 512, 0), Returned(1, b"\6" * 512, 0)]
"""What `read_two` brings."""
