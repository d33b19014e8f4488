"""A foreign VMM as a guest: its disk through the whole ring, and through the deaths of everybody in it."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.controllers.block.core import ImageGrown
from iovirt_dist.gateway.vhost_user.messages import Request
from iovirt_dist.testing.nodes import ControllerNode
from iovirt_dist.virtio.block import CONFIG_BYTES, HEADER_BYTES, BlockConfig, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.split import AVAIL_RING_OFFSET
from tests.unit.gateway.vhost_user.front_end import config, message
from tests.unit.gateway.vm_rig import BLOCK, DISK, GATEWAY, HEADERS, HYPERVISOR, SECTOR_BYTES, VmRig

CONTENT = bytes(at % 251 for at in range(256 * SECTOR_BYTES))
WRITTEN = bytes(range(256)) * 2
MS = 1_000_000


def connected(**settings: int) -> VmRig:
    """A rig whose VMM has started its queue."""
    rig = VmRig(CONTENT, **settings)  # type: ignore[arg-type]  # keywords of `VmRig`
    rig.connect()
    return rig


def offer_writes(rig: VmRig, count: int) -> list[int]:
    """Offer writes of slot n to sector n; returns their numbers."""
    numbers = [rig.vmm.offer(slot, BlockRequest.OUT, slot, WRITTEN) for slot in range(count)]
    rig.vmm.kick()
    return numbers


def finish(rig: VmRig, numbers: list[int]) -> None:
    """Run until requests are used; each must be used once, and well."""
    used: list[int] = []

    def done() -> bool:
        used.extend(head for head, _ in rig.vmm.driver.take_used())
        return len(used) >= len(numbers)

    rig.run_until(done, what="end of all requests")
    assert sorted(used) == sorted(numbers)
    assert [rig.vmm.status(slot) for slot in range(len(numbers))] == [0] * len(numbers)


def test_front_end_reads_what_is_on_the_disk() -> None:
    """From the driver's ring in shared memory to the medium and back."""
    rig = connected()
    head = rig.vmm.offer(0, BlockRequest.IN, 3, 1024)
    rig.vmm.kick()

    finish(rig, [head])

    assert rig.vmm.data(0, 1024) == CONTENT[3 * SECTOR_BYTES : 5 * SECTOR_BYTES]


def test_kick_is_a_doorbell_and_both_sides_count_it() -> None:
    """One doorbell for a batch, one interrupt for its completions, none at the hypervisor."""
    rig = connected()
    rig.settle()
    calls = rig.vmm.calls

    finish(rig, offer_writes(rig, 8))

    vm = rig.hypervisor.core.guests[GATEWAY].vm
    assert rig.gateway.core.script.core.counts.traps == vm.counts.traps
    assert rig.vmm.calls - calls == 1
    assert vm.machine is not None
    assert vm.machine.driver_level is not None
    assert vm.machine.driver_level.interrupts == vm.machine.driver_level.late_interrupts == 0


def test_driver_is_interrupted_once_when_its_queue_starts() -> None:
    """Whoever served it before may have used requests and not said so."""
    rig = connected()

    rig.settle()

    assert rig.vmm.calls == 1


@pytest.mark.parametrize("name", [HYPERVISOR, BLOCK])
def test_requests_in_flight_survive_the_death_of(name: str) -> None:
    """The front end hears nothing of it."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 6)
    rig.run_for(5 * MS)
    rig.restart(name)

    finish(rig, numbers)

    assert rig.vmm.connected
    assert rig.storage.stable[: 6 * SECTOR_BYTES] == WRITTEN * 6


def test_requests_in_flight_survive_the_death_of_the_gateway() -> None:
    """The next one finds them in the memory that the front end keeps."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 6)
    rig.run_for(5 * MS)
    rig.restart_gateway()

    finish(rig, numbers)

    assert rig.storage.stable[: 6 * SECTOR_BYTES] == WRITTEN * 6


def test_stopped_queue_is_drained_before_its_front_end_hears_of_it() -> None:
    """GET_VRING_BASE: nothing is in flight, and the index is that of the used ring."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 3)
    rig.run_for(MS)
    rig.vmm.stop_queue()
    assert Request.GET_VRING_BASE not in rig.vmm.replies

    rig.run_until(lambda: Request.GET_VRING_BASE in rig.vmm.replies, what="answer")

    assert sorted(head for head, _ in rig.vmm.driver.take_used()) == sorted(numbers)
    assert struct.unpack("=II", rig.vmm.replies[Request.GET_VRING_BASE]) == (0, 3)


def test_stopped_queue_is_drained_by_a_hypervisor_that_comes_back() -> None:
    """What was in flight when it died is done before the front end hears that the queue has stopped."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 3)
    rig.run_for(MS)
    rig.kill(HYPERVISOR)
    rig.vmm.stop_queue()
    rig.run_for(100 * MS)
    rig.start(HYPERVISOR)

    rig.run_until(lambda: Request.GET_VRING_BASE in rig.vmm.replies, what="answer")

    assert sorted(head for head, _ in rig.vmm.driver.take_used()) == sorted(numbers)


def test_queue_that_starts_again_goes_on_where_it_stopped() -> None:
    """As when a guest is paused and goes on."""
    rig = connected()
    finish(rig, offer_writes(rig, 3))
    rig.vmm.stop_queue()
    rig.run_until(lambda: Request.GET_VRING_BASE in rig.vmm.replies, what="answer")
    rig.vmm.start_queue(3)
    rig.run_until(lambda: rig.vmm.started, what="start of the queue")

    finish(rig, offer_writes(rig, 5))


def test_queue_that_was_stopped_while_busy_hears_of_the_next_request() -> None:
    """While it was busy it had not asked the driver to notify; started again with an empty ring it must."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 6)
    rig.run_for(MS)
    rig.vmm.stop_queue()
    rig.run_until(lambda: Request.GET_VRING_BASE in rig.vmm.replies, what="answer")
    rig.vmm.start_queue(6)
    rig.run_until(lambda: rig.vmm.started, what="start of the queue")
    finish(rig, numbers)
    rig.run_for(50 * MS)

    finish(rig, offer_writes(rig, 1))


def test_device_that_is_reset_has_finished_and_serves_the_next_driver() -> None:
    """RESET_DEVICE stops the queue first, as drained as GET_VRING_BASE would."""
    rig = connected(storage_ns=20 * MS)
    vmm = rig.vmm
    offer_writes(rig, 3)
    vmm.send(message(Request.RESET_DEVICE))
    rig.run_until(lambda: rig.gateway.core.devices[DISK].backend.queues[0].kick is None, what="reset")
    assert [vmm.status(slot) for slot in range(3)] == [0, 0, 0]

    vmm.power_on()
    vmm.share_memory()
    vmm.start_queue()
    rig.run_until(lambda: vmm.started, what="start")

    finish(rig, offer_writes(rig, 2))


def test_front_end_that_goes_leaves_room_for_the_next() -> None:
    """A VMM that is killed with requests in flight, and one with new memory."""
    rig = connected(storage_ns=20 * MS)
    offer_writes(rig, 6)
    rig.run_for(MS)
    rig.vmm.disconnect()
    rig.vmm.power_on()
    rig.connect()

    finish(rig, offer_writes(rig, 4))


def test_memory_may_be_mapped_anew_while_requests_are_in_flight() -> None:
    """QEMU sends its table again when a guest maps a PCI device."""
    rig = connected(storage_ns=20 * MS)
    numbers = offer_writes(rig, 4)
    rig.run_for(MS)
    rig.vmm.share_memory()

    finish(rig, numbers)


def test_ring_that_cannot_be_walked_is_told_and_runs_again_once_it_is_started_anew() -> None:
    """The error descriptor is signalled; the hypervisor's device is reset before the next start."""
    rig = connected()
    vmm = rig.vmm
    vmm.memory.write(vmm.setup.driver_area + AVAIL_RING_OFFSET, struct.pack("<H", 999))
    vmm.memory.write(vmm.setup.driver_area + 2, struct.pack("<H", 1))
    vmm.kick()
    rig.run_for(MS)
    assert vmm.errors == 1
    assert rig.gateway.core.devices[DISK].faults[0].startswith("queue 0: head-range")

    vmm.disconnect()
    vmm.power_on()
    rig.connect()

    finish(rig, offer_writes(rig, 2))


def offer_nonsense(rig: VmRig) -> None:
    """Offer a request without room for its status: the hypervisor's device wants to be reset."""
    rig.vmm.driver.add([(HEADERS, HEADER_BYTES)], [])
    rig.vmm.kick()


def test_device_that_wants_a_reset_is_told_as_a_broken_ring() -> None:
    """What the hypervisor does not take, no ring of this device gets over; its front end hears of it."""
    rig = connected()
    offer_nonsense(rig)
    rig.run_until(lambda: rig.vmm.errors == 1, what="report")

    assert list(rig.gateway.core.devices[DISK].faults) == ["queue 0: the device needs a reset"]


def test_device_that_wants_a_reset_serves_the_next_driver() -> None:
    """The guest's driver resets its device, with which QEMU stops the queue, and begins anew."""
    rig = connected()
    vmm = rig.vmm
    offer_nonsense(rig)
    rig.run_for(5 * MS)
    vmm.stop_queue()
    rig.run_until(lambda: Request.GET_VRING_BASE in vmm.replies, what="stop")
    vmm.power_on()
    vmm.share_memory()
    vmm.start_queue()
    rig.run_until(lambda: vmm.started, what="start")

    finish(rig, offer_writes(rig, 2))


def test_device_that_wants_a_reset_is_reset_even_if_its_queue_stops_at_once() -> None:
    """Nobody has looked at the device's status by then."""
    rig = connected()
    vmm = rig.vmm
    offer_nonsense(rig)
    vmm.stop_queue()
    rig.run_until(lambda: Request.GET_VRING_BASE in vmm.replies, what="stop")
    vmm.power_on()
    vmm.share_memory()
    vmm.start_queue()
    rig.run_until(lambda: vmm.started, what="start")

    finish(rig, offer_writes(rig, 2))


def test_queue_of_a_driver_without_version_1_is_not_served() -> None:
    """Legacy drivers have other formats."""
    rig = VmRig(CONTENT)
    rig.vmm.features = mask(Feature.RING_EVENT_IDX)
    rig.connect()
    rig.run_for(MS)

    assert list(rig.gateway.core.devices[DISK].faults) == ["queue 0: the driver does not know VERSION_1"]
    assert rig.vmm.errors == 1


def test_disk_that_grows_before_its_driver_is_there_is_told() -> None:
    """No interrupt says so: the device has no driver yet, and the front end has asked already."""
    rig = VmRig(CONTENT)
    backend = rig.gateway.core.devices[DISK].backend
    rig.vmm.connect()
    rig.run_until(lambda: any(vring.started for vring in backend.queues), what="the front end's word")

    block = rig.nodes[BLOCK]
    assert isinstance(block, ControllerNode)
    block.deliver(ImageGrown(2 * len(CONTENT)))
    finish(rig, offer_writes(rig, 1))
    rig.settle()

    rig.vmm.send(config(Request.GET_CONFIG, 0, bytes(CONFIG_BYTES)))
    told = BlockConfig.unpack(rig.vmm.replies[Request.GET_CONFIG][-CONFIG_BYTES:])

    assert told.capacity == 2 * len(CONTENT) // SECTOR_BYTES
