"""A queue whose buffers stay with the device until something is received: a network card's, in a foreign VMM."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from iovirt_dist.controllers.net.config import NetConfig, PortConfig
from iovirt_dist.controllers.net.core import NetController
from iovirt_dist.controllers.net.uplink import UplinkReceived
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.faults.link import Faults
from iovirt_dist.gateway.vhost_user.messages import Request
from iovirt_dist.hypervisor.plan import Attachment, Card, GuestPlan
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.testing.nodes import ControllerNode, HypervisorNode, Node
from iovirt_dist.testing.simulation import Simulation
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.network import HEADER_BYTES
from iovirt_dist.virtio.ring import driver_ring
from tests.unit.gateway.vhost_user.front_end import FakeMapper, state
from tests.unit.gateway.vm_rig import DATA, GATEWAY, HYPERVISOR, MEMORY_BYTES, GatewayNode, Vmm

NET = "net"
FEATURES = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX)
MAC = bytes((2, 0, 0, 0, 0, 1))
STRANGER = bytes((2, 0, 0, 0, 0, 9))
BUFFER_BYTES = 2048
MS = 1_000_000


def frame(number: int) -> bytes:
    """A frame for everybody."""
    return b"\xff" * 6 + STRANGER + b"\x88\xb5" + bytes((number,)) * 46


class NetVmRig(Simulation):
    """A VMM with a network card, its gateway, hypervisor, and a switch with an uplink."""

    def __init__(self) -> None:
        super().__init__(Faults(delay_ns=(50_000, 50_000)), 0, 500, 1000)
        self.vmm = Vmm(FakeMapper(), VirtioSlot.NETWORK, FEATURES)
        ports = (PortConfig(name=GATEWAY, peer=HYPERVISOR, mac=MAC),)
        self.switch = ControllerNode(
            NET, self.world, lambda: NetController(NetConfig(ports=ports, uplink="up0")), lambda _: None, HYPERVISOR
        )
        nodes: list[Node] = [
            self.switch,
            HypervisorNode(HYPERVISOR, self.world, _plans, (NET,), (), 0),
            GatewayNode(GATEWAY, self.world, self.vmm),
        ]
        self.nodes = {node.name: node for node in nodes}
        self.start(NET, HYPERVISOR, GATEWAY)

    def start_queue(self, base: int = 0) -> None:
        """Start the receive queue again."""
        self.vmm.start_queue(base)
        self.run_until(lambda: self.vmm.started, what="start of the queue")
        self.run_for(MS)

    def stop_queue(self) -> int:
        """Stop the receive queue; returns where."""
        self.vmm.replies.pop(Request.GET_VRING_BASE, None)
        self.vmm.stop_queue()
        self.run_until(lambda: Request.GET_VRING_BASE in self.vmm.replies, what="stop of the queue")
        return int.from_bytes(self.vmm.replies[Request.GET_VRING_BASE][4:], "little")

    def give_buffers(self, count: int) -> list[int]:
        """Make buffers available; returns their numbers."""
        heads = [self.vmm.driver.add([], [(DATA + BUFFER_BYTES * at, BUFFER_BYTES)]) for at in range(count)]
        self.vmm.kick()
        self.run_for(MS)
        return heads

    def receive(self, number: int) -> list[tuple[int, bytes]]:
        """Have a frame come from outside; returns buffers that were used for it, with their frames."""
        self.switch.deliver(UplinkReceived([frame(number)]))
        self.run_for(20 * MS)
        used = self.vmm.driver.take_used()
        return [(head, self.frame_in(head, length)) for head, length in used]

    def frame_in(self, head: int, length: int) -> bytes:
        """What is in a buffer, which has one descriptor: its number is its place in the table."""
        address = int.from_bytes(self.vmm.memory.read(self.vmm.setup.descriptors + 16 * head, 8), "little")
        return self.vmm.memory.read(address + HEADER_BYTES, length - HEADER_BYTES)


def _plans(pairs: Mapping[str, QueuePair]) -> dict[str, GuestPlan]:
    card = Card(Attachment(pairs[NET], GATEWAY), MAC, 1500)
    return {GATEWAY: GuestPlan(GATEWAY, "vm", MEMORY_BYTES, None, None, level=Level.DRIVER, net=card)}


@pytest.fixture
def rig() -> NetVmRig:
    """One whose VMM has started the receive queue."""
    made = NetVmRig()
    made.vmm.connect()
    made.run_until(lambda: made.vmm.started, what="start of the queue")
    made.run_for(MS)
    return made


def test_frame_is_received_in_the_first_buffer(rig: NetVmRig) -> None:
    """From the switch's uplink to the driver."""
    heads = rig.give_buffers(3)

    assert rig.receive(1) == [(heads[0], frame(1))]


def test_stop_does_not_wait_for_frames_and_hands_the_buffers_back(rig: NetVmRig) -> None:
    """The base is the used index: what was available behind it is available once more."""
    rig.give_buffers(4)
    rig.receive(1)

    assert rig.stop_queue() == 1
    assert rig.receive(2) == []


def test_buffers_that_were_handed_back_are_used_in_their_order(rig: NetVmRig) -> None:
    """None is lost and none is used twice."""
    heads = rig.give_buffers(4)
    rig.receive(1)
    rig.start_queue(rig.stop_queue())

    used = [rig.receive(number) for number in (2, 3, 4)]

    assert used == [[(head, frame(number))] for head, number in zip(heads[1:], (2, 3, 4), strict=True)]


def test_driver_that_begins_anew_gets_no_buffer_of_the_one_before(rig: NetVmRig) -> None:
    """The log of requests in flight outlives the driver: the stop has emptied it. A frame without a buffer waits."""
    rig.give_buffers(4)
    rig.stop_queue()
    rig.vmm.driver = driver_ring(rig.vmm.memory, rig.vmm.setup)
    rig.vmm.memory.write(rig.vmm.setup.driver_area, bytes(4))
    rig.vmm.memory.write(rig.vmm.setup.device_area, bytes(4))
    rig.start_queue()

    assert rig.receive(1) == []
    (head,) = rig.give_buffers(1)
    assert rig.receive(2) == [(head, frame(1))]


def test_queue_that_is_disabled_keeps_its_buffers(rig: NetVmRig) -> None:
    """QEMU disables the queues of a card whose link goes down."""
    heads = rig.give_buffers(2)
    rig.vmm.send(state(Request.SET_VRING_ENABLE, 0, 0))
    rig.run_for(MS)
    rig.vmm.send(state(Request.SET_VRING_ENABLE, 0, 1))
    rig.run_until(lambda: rig.vmm.started, what="start of the queue")
    rig.run_for(MS)

    assert rig.receive(1) == [(heads[0], frame(1))]
