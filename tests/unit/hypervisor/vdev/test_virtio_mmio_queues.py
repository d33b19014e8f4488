"""Tests of the virtio-mmio transport's queues by VIRTIO 1.2, section 4.2.3.2."""

from __future__ import annotations

import pytest

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.queue_messages import ArmQueue, DisarmQueue
from tests.unit.hypervisor.vdev.virtio_bench import (
    BASE,
    DRIVER_OK,
    FAILED,
    LIVE,
    NEEDS_RESET,
    NUMBER,
    bench,
)

VERSION_1 = mask(Feature.VERSION_1)
PACKED = mask(Feature.VERSION_1, Feature.RING_PACKED)


# --- section 4.2.3.2: queues


def test_queue_enabled_before_driver_ok_is_armed_by_it() -> None:
    """With everything that its registers say."""
    device = bench()
    device.negotiate(VERSION_1)
    device.set_up(1, size=16)
    before = device.flush()

    device.status(DRIVER_OK)

    assert before == []
    assert device.bodies() == [
        ArmQueue(NUMBER, 1, 1, BASE + 0x50, 16, 0x8001_0000, 0x8001_4000, 0x8001_8000, VERSION_1, 0)
    ]


def test_queue_enabled_after_driver_ok_is_armed_at_once() -> None:
    """Drivers may enable queues as they need them."""
    device = bench()
    device.negotiate()
    device.status(DRIVER_OK)
    before = device.flush()

    device.set_up(0)

    assert before == []
    assert [type(body) for body in device.bodies()] == [ArmQueue]
    assert device.read(Register.QUEUE_READY) == 1


def test_queue_addresses_have_both_halves() -> None:
    """64 bits each."""
    device = bench()
    device.negotiate()
    device.status(DRIVER_OK)
    for at, register in enumerate((0x80, 0x90, 0xA0)):
        device.write(register + 4, at + 1)
        device.write(register, 0x1000 * (at + 1))

    device.write(Register.QUEUE_READY, 1)

    (arm,) = device.bodies()
    assert isinstance(arm, ArmQueue)
    assert (arm.descriptors, arm.driver_area, arm.device_area) == (0x1_0000_1000, 0x2_0000_2000, 0x3_0000_3000)


def test_queue_registers_are_locked_while_it_is_enabled() -> None:
    """Section 4.2.2.2: the driver must not write them then."""
    device = bench().start()

    device.write(Register.QUEUE_NUM, 8)
    device.write(Register.QUEUE_DESC_LOW, 0)
    device.write(Register.QUEUE_READY, 0)
    device.write(Register.QUEUE_READY, 1)

    arm = device.bodies()[-1]
    assert isinstance(arm, ArmQueue)
    assert (arm.size, arm.descriptors) == (64, 0x8001_0000)


@pytest.mark.parametrize("size", [0, 257, 1 << 31])
def test_queue_size_out_of_range_is_ignored(size: int) -> None:
    """What was set before stays."""
    device = bench()
    device.negotiate()
    device.write(Register.QUEUE_NUM, 32)
    device.write(Register.QUEUE_NUM, size)
    device.write(Register.QUEUE_READY, 1)
    device.status(DRIVER_OK)

    (arm,) = device.bodies()
    assert isinstance(arm, ArmQueue)
    assert arm.size == 32


@pytest.mark.parametrize(
    ("features", "register", "value", "reason"),
    [
        (VERSION_1, Register.QUEUE_NUM, 24, "queue-size"),
        (VERSION_1, Register.QUEUE_DESC_LOW, 0x1008, "queue-alignment"),
        (VERSION_1, Register.QUEUE_DRIVER_LOW, 0x1001, "queue-alignment"),
        (VERSION_1, Register.QUEUE_DEVICE_LOW, 0x1002, "queue-alignment"),
        (PACKED, Register.QUEUE_DRIVER_LOW, 0x1002, "queue-alignment"),
    ],
)
def test_queue_that_cannot_be_armed_asks_for_a_reset(features: int, register: int, value: int, reason: str) -> None:
    """Sections 2.7 and 2.8: sizes and alignment."""
    device = bench()
    device.negotiate(features)
    device.write(register, value)
    device.write(Register.QUEUE_READY, 1)

    status = device.status(DRIVER_OK)

    assert status == LIVE | NEEDS_RESET
    assert device.host.faults == {reason: 1}
    assert device.flush() == []
    assert device.line.level


@pytest.mark.parametrize(("register", "value"), [(Register.QUEUE_NUM, 24), (Register.QUEUE_DRIVER_LOW, 0x1004)])
def test_packed_queue_is_armed_with_what_a_split_one_could_not_have(register: int, value: int) -> None:
    """Section 2.8: any size; event suppression structures aligned to 4."""
    device = bench()
    device.negotiate(PACKED)
    device.write(register, value)
    device.write(Register.QUEUE_READY, 1)

    assert device.status(DRIVER_OK) == LIVE
    assert [type(body) for body in device.bodies()] == [ArmQueue]


def test_queue_disabled_is_disarmed_and_armed_anew_with_another_generation() -> None:
    """QueueReady 0 and 1 again; each message names the life that it is about."""
    device = bench().start()

    device.write(Register.QUEUE_READY, 0)
    disarmed = device.bodies()
    device.write(Register.QUEUE_READY, 1)
    (arm,) = device.bodies()

    assert disarmed == [DisarmQueue(NUMBER, 1, 2)]
    assert isinstance(arm, ArmQueue)
    assert arm.generation == 3


def test_queue_toggled_within_one_step_costs_two_messages() -> None:
    """However often: what the guest's process is told is the difference."""
    device = bench().start()

    for ready in (0, 1) * 1000:
        device.write(Register.QUEUE_READY, ready)

    assert [type(body) for body in device.bodies()] == [DisarmQueue, ArmQueue]


@pytest.mark.parametrize("status", [0, FAILED])
def test_device_reset_or_given_up_disarms_its_queues(status: int) -> None:
    """Sections 2.4 and 2.1: FAILED means that the driver has given up."""
    device = bench().start()

    device.write(Register.STATUS, status)

    assert device.bodies() == [DisarmQueue(NUMBER, 0, 1), DisarmQueue(NUMBER, 1, 2)]


def test_device_after_reset_is_as_new() -> None:
    """Registers, features, queues; the generations of queues go on."""
    device = bench().start()

    device.write(Register.STATUS, 0)
    device.flush()

    fresh = bench().device.state()
    for queue in (*fresh["queues"],):
        queue["life"][3:] = [0, 0]
    assert device.device.state() == fresh


def test_notification_that_comes_as_a_trap_is_counted() -> None:
    """The guest's process looks at the ring when it arms it, so nothing needs to be done."""
    device = bench()

    device.write(Register.QUEUE_NOTIFY, 0)

    assert device.device.notify_traps == 1
