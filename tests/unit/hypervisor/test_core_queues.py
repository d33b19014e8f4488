"""The hypervisor core and armed queues: what leaves when, whatever the guest's process does meanwhile."""

from __future__ import annotations

from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.testing.rig import MESSAGE_NS, Rig
from iovirt_dist.virtio.block import BlockRequest
from iovirt_dist.wire.queue_messages import QueueInterrupt
from tests.unit.testing.virtio_driver import SECTOR_BYTES, VirtioDisk


def test_interrupt_that_the_guests_process_asks_for_leaves_at_once() -> None:
    """The driver wanted none when it rang and one when its request was done: six messages later it has it."""
    rig = Rig(machine="virt", level=Level.DRIVER, memory_bytes=8 << 20)
    disk = VirtioDisk(rig.guest())
    rig.settle()
    disk.driver.disable_interrupts()
    disk.offer(0, BlockRequest.IN, 0, SECTOR_BYTES)
    disk.notify()
    began_ns = rig.now_ns()

    disk.driver.enable_interrupts()
    lines = rig.guest().wait_interrupt()

    assert [message.sender for message in rig.messages if isinstance(message.body, QueueInterrupt)] == ["guest"]
    assert lines == 1 << virt.SEIP
    assert rig.now_ns() - began_ns <= 6 * MESSAGE_NS
