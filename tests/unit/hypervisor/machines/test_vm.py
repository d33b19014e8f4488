"""The `vm` machine as a gateway finds it: through its windows only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iovirt_dist.hypervisor.address_map import Space
from iovirt_dist.hypervisor.intercept.operation import perform
from iovirt_dist.hypervisor.machines.machine import Machine
from iovirt_dist.hypervisor.machines.registry import build_machine
from iovirt_dist.hypervisor.machines.vm import build_vm
from iovirt_dist.platform import vm
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.block import BlockConfig
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.messages import Trap, TrapKind
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, Doorbell
from tests.unit.hypervisor.machines.parts import Surroundings
from tests.unit.hypervisor.machines.virtio_story import READ_TWO, Story
from tests.unit.hypervisor.vdev.virtio_bench import Offered, pack_requests, unpack_returned


def window(slot: int) -> int:
    """Where a slot answers."""
    return vm.VIRTIO_BASE + vm.VIRTIO_STRIDE * slot


def load(machine: Machine, address: int) -> int:
    """Load 32 bits."""
    return perform(machine.address_map, Trap(1, TrapKind.MMIO_LOAD, address, 4, 1, 0, 0), b"", 0).value


def store(machine: Machine, *writes: tuple[int, int]) -> None:
    """Store 32 bits each."""
    for address, value in writes:
        perform(machine.address_map, Trap(1, TrapKind.MMIO_STORE, address, 4, 1, value, 0), b"", 0)


def start_serial(machine: Machine) -> list[ArmQueue]:
    """Set the serial device up with both its queues; returns what the guest is told."""
    base = window(VirtioSlot.SERIAL)
    store(machine, (base + Register.STATUS, 3), (base + Register.DRIVER_FEATURES_SEL, 1))
    store(machine, (base + Register.DRIVER_FEATURES, 1), (base + Register.STATUS, 11))
    for queue in range(2):
        store(machine, (base + Register.QUEUE_SEL, queue), (base + Register.QUEUE_NUM, 16), (base + 0x80, 0x1000))
        store(machine, (base + 0x90, 0x2000), (base + 0xA0, 0x3000), (base + Register.QUEUE_READY, 1))
    store(machine, (base + Register.STATUS, 15))
    return [body for body, _ in machine.interceptors[0].flush(0) if isinstance(body, ArmQueue)]


def test_vm_has_its_virtio_devices_in_their_slots() -> None:
    """Disk, console, entropy, network, and a second console as serial port; the other slots are empty."""
    machine = build_vm(Surroundings().parts(level=Level.DRIVER, virtio=True))

    ids = [load(machine, window(slot) + Register.DEVICE_ID) for slot in range(vm.VIRTIO_SLOTS)]

    assert ids == [2, 3, 4, 1, 3, 0, 0, 0]


def test_vm_has_nothing_but_windows() -> None:
    """Neither ports nor anything that keeps time or takes an interrupt acknowledgement."""
    machine = build_vm(Surroundings().parts(virtio=True))

    assert machine.address_map.ranges(Space.PORT) == ()
    assert [found.base for found in machine.address_map.ranges(Space.MEMORY)] == [window(slot) for slot in range(8)]
    assert (machine.timed, machine.acknowledge, machine.deadline_ns()) == ((), None, None)


@pytest.mark.parametrize("level", list(Level))
def test_vm_disk_is_a_virtio_disk_at_any_level(level: Level) -> None:
    """There is no other way to it."""
    machine = build_vm(Surroundings().parts(level=level))

    assert load(machine, window(VirtioSlot.DISK) + Register.DEVICE_ID) == 2
    assert machine.disk is not None


def test_vm_without_console_has_no_serial_port() -> None:
    """Slot 4 is empty, and nobody takes what is typed."""
    machine = build_vm(Surroundings().parts(serial=False))

    assert load(machine, window(VirtioSlot.SERIAL) + Register.DEVICE_ID) == 0
    assert (machine.terminal, machine.terminal_name) == (None, "")


def test_vm_disk_has_as_many_queues_as_its_plan_says() -> None:
    """Field `num_queues` of its configuration."""
    around = Surroundings()

    machine = build_machine("vm", replace(around.parts(), disk_queues=4))
    words = [load(machine, window(VirtioSlot.DISK) + Register.CONFIG + at) for at in range(0, 72, 4)]

    assert BlockConfig.unpack(b"".join(word.to_bytes(4, "little") for word in words)).num_queues == 4


def test_vm_disk_reads_and_raises_the_input_of_its_slot() -> None:
    """Negotiate, arm, doorbell, complete, interrupt, acknowledge."""
    around = Surroundings()
    machine = build_vm(around.parts())
    story = Story(machine, around, window(VirtioSlot.DISK))

    arm = story.arm()
    body, returned = story.read_two(arm)
    story.store((Register.INTERRUPT_ACK, story.load(Register.INTERRUPT_STATUS)))

    assert (arm.device, arm.notify) == (VirtioSlot.DISK, window(VirtioSlot.DISK) + Register.QUEUE_NOTIFY)
    assert (body.interrupt, body.lines, returned) == (True, (VirtioSlot.DISK, 1), READ_TWO)
    assert machine.lines.take_changes() == (VirtioSlot.DISK, 2)


def test_vm_serial_port_is_the_terminal() -> None:
    """What the driver sends is shown, and what is typed comes into its buffer, with its slot's interrupt."""
    around = Surroundings()
    machine = build_vm(around.parts(virtio=True))
    receive, transmit = start_serial(machine)
    for arm, offered in ((transmit, Offered(0, b"login: ")), (receive, Offered(1, b"", 64))):
        entries, payload = pack_requests([offered], arm.header_bytes)
        bell = Doorbell(arm.device, arm.queue, arm.generation, 1, -1, entries)
        assert machine.interceptors[0].message(bell, payload, 0)
    machine.interceptors[0].flush(0)
    assert machine.terminal is not None

    taken = machine.terminal.receive(b"root", 0)
    (outgoing,) = machine.interceptors[0].flush(0)

    assert machine.terminal_name == "virtio-serial"
    assert (around.screen.shown, taken) == (b"login: ", 4)
    assert isinstance(outgoing.body, Completions)
    assert unpack_returned(outgoing.body, outgoing.payload)[0].data == b"root"


def test_vm_state_of_every_device_goes_through_another_machine() -> None:
    """With a queue armed and an interrupt pending."""
    around, other = Surroundings(), Surroundings()
    machine, copy = build_vm(around.parts(virtio=True)), build_vm(other.parts(virtio=True))
    story = Story(machine, around, window(VirtioSlot.DISK))
    story.read_two(story.arm())

    for name, device in copy.devices.items():
        device.restore(machine.devices[name].state())

    assert copy.lines.take_changes() == (VirtioSlot.DISK, 1)
    assert {name: device.state() for name, device in copy.devices.items()} == {
        name: device.state() for name, device in machine.devices.items()
    }
