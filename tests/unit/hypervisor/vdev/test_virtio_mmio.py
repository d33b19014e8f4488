"""Tests of the virtio-mmio transport by VIRTIO 1.2, sections 2.1 to 2.5, 3.1 and 4.2."""

from __future__ import annotations

import pytest

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Status as CommandStatus
from iovirt_dist.wire.queue_messages import ALWAYS, Completions, QueueInterrupt
from tests.unit.hypervisor.vdev.virtio_bench import (
    ACKNOWLEDGE,
    CONFIGURATION,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    LIVE,
    NEEDS_RESET,
    NUMBER,
    USED,
    BlockBench,
    Offered,
    bench,
)

VERSION_1 = mask(Feature.VERSION_1)
PACKED = mask(Feature.VERSION_1, Feature.RING_PACKED)


# --- section 4.2.2: registers


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (Register.MAGIC_VALUE, 0x74726976),
        (Register.VERSION, 2),
        (Register.DEVICE_ID, 3),
        (Register.QUEUE_NUM_MAX, 256),
        (Register.QUEUE_READY, 0),
        (Register.INTERRUPT_STATUS, 0),
        (Register.STATUS, 0),
        (Register.SHM_LEN_LOW, 0xFFFF_FFFF),
        (Register.SHM_LEN_HIGH, 0xFFFF_FFFF),
        (Register.SHM_BASE_LOW, 0xFFFF_FFFF),
        (Register.SHM_BASE_HIGH, 0xFFFF_FFFF),
        (Register.CONFIG_GENERATION, 0),
        (Register.QUEUE_RESET, 0),
        (Register.QUEUE_NOTIFY, 0),
    ],
)
def test_register_after_power_on_reads_as_specified(register: Register, value: int) -> None:
    """Section 4.2.2; regions of shared memory that do not exist have length and base -1."""
    assert bench().read(register) == value


def test_register_read_in_parts_gives_parts() -> None:
    """Bytes of the magic value; no driver may ask so."""
    device = bench()

    assert bytes(device.read(at, 1) for at in range(4)) == b"virt"
    assert device.read(2, 4) == 0x7472


def test_register_written_narrowly_stays() -> None:
    """Control registers are written whole."""
    device = bench()

    device.write(Register.STATUS, ACKNOWLEDGE, 1)
    device.write(Register.STATUS, ACKNOWLEDGE, 2)

    assert device.read(Register.STATUS) == 0


def test_queue_that_does_not_exist_has_no_size() -> None:
    """QueueNumMax reads 0 (section 4.2.2); enabling it does nothing."""
    device = bench()
    device.negotiate()

    device.set_up(2)

    assert (device.read(Register.QUEUE_NUM_MAX), device.read(Register.QUEUE_READY)) == (0, 0)
    assert device.status(DRIVER_OK) == LIVE
    assert device.flush() == []


def test_configuration_space_reads_at_any_width_and_0_behind_its_end() -> None:
    """The console's: number of ports at 4."""
    device = bench()

    assert device.read(Register.CONFIG + 4, 4) == 1
    assert device.read(Register.CONFIG + 4, 1) == 1
    assert device.read(Register.CONFIG + 12, 4) == 0
    assert device.read(Register.CONFIG + 0xEFC, 4) == 0


# --- sections 2.1, 2.2 and 3.1.1: status and features


def test_device_offers_ring_features_in_both_layouts() -> None:
    """Section 6: VERSION_1, indirect descriptors, event index, packed ring; nothing of the platform's."""
    offered = bench().offered()

    assert offered >> 24 == mask(4, 5, 8, 10)


def test_device_features_beyond_bit_63_are_none() -> None:
    """Selectors above 1 read 0, and what is accepted there is lost."""
    device = bench()
    device.write(Register.DEVICE_FEATURES_SEL, 2)
    device.write(Register.DRIVER_FEATURES_SEL, 2)
    device.write(Register.DRIVER_FEATURES, 1)

    assert device.read(Register.DEVICE_FEATURES) == 0
    assert device.device.features == 0


@pytest.mark.parametrize(
    ("features", "accepted"),
    [
        (VERSION_1, True),
        (PACKED, True),
        (0, False),
        (mask(Feature.RING_EVENT_IDX), False),
        (VERSION_1 | mask(Feature.ACCESS_PLATFORM), False),
        (VERSION_1 | mask(Feature.IN_ORDER), False),
        (VERSION_1 | 1, False),
        (VERSION_1 | 1 << 63, False),
    ],
)
def test_features_ok_stays_for_a_subset_with_version_1_only(features: int, accepted: bool) -> None:
    """Section 3.1.1, step 6: the driver reads the status back."""
    assert bool(bench().negotiate(features) & FEATURES_OK) is accepted


def test_features_after_features_ok_are_no_longer_accepted() -> None:
    """Section 3.1.1, step 5."""
    device = bench()
    device.negotiate(VERSION_1)

    device.accept(VERSION_1 | mask(Feature.RING_EVENT_IDX))

    assert device.device.features == VERSION_1


def test_driver_that_was_refused_features_may_try_others() -> None:
    """Nothing but FEATURES_OK was refused."""
    device = bench()
    device.negotiate(0)
    device.accept(VERSION_1)

    assert device.status(FEATURES_OK) == ACKNOWLEDGE | DRIVER | FEATURES_OK


def test_driver_ok_without_features_ok_is_not_taken() -> None:
    """Section 3.1.1, step 8 follows step 6."""
    device = bench()

    assert device.status(ACKNOWLEDGE, DRIVER, DRIVER_OK) == ACKNOWLEDGE | DRIVER


def test_status_bits_are_only_taken_back_by_a_reset() -> None:
    """Section 2.1.1: the driver must not clear a bit."""
    device = bench()
    device.status(ACKNOWLEDGE, DRIVER)

    device.write(Register.STATUS, ACKNOWLEDGE)
    kept = device.read(Register.STATUS)
    device.write(Register.STATUS, 0)

    assert kept == ACKNOWLEDGE | DRIVER
    assert device.read(Register.STATUS) == 0


def test_status_needs_reset_cannot_be_set_by_the_driver() -> None:
    """It is the device's word (section 2.1)."""
    assert bench().status(NEEDS_RESET, 0x10) == 0


# --- interrupts: InterruptStatus and InterruptACK, sections 2.1.2, 2.3 and 2.5


def raise_used(device: BlockBench) -> None:
    """A completion that the driver wants an interrupt for."""
    device.doorbell(0, Offered(0, bytes(16), 513), interrupt_at=ALWAYS)
    device.complete()


def test_used_buffer_interrupt_rises_and_falls_with_its_acknowledgement() -> None:
    """Level-triggered: high while InterruptStatus is not 0."""
    device = BlockBench()

    raise_used(device)
    risen = (device.line.level, device.read(Register.INTERRUPT_STATUS))
    device.write(Register.INTERRUPT_ACK, USED)

    assert risen == (True, USED)
    assert (device.line.level, device.read(Register.INTERRUPT_STATUS)) == (False, 0)


def test_acknowledgement_of_other_bits_keeps_the_interrupt() -> None:
    """Each bit for itself."""
    device = BlockBench()
    raise_used(device)
    device.read(Register.INTERRUPT_STATUS)

    device.write(Register.INTERRUPT_ACK, CONFIGURATION | 0xF0)

    assert device.line.level


def test_acknowledgement_does_not_take_back_what_rose_after_the_status_was_read() -> None:
    """The completions of the second batch are not in the ring yet when the driver acknowledges the first."""
    device = BlockBench()
    raise_used(device)
    device.read(Register.INTERRUPT_STATUS)
    raise_used(device)

    device.write(Register.INTERRUPT_ACK, USED)
    kept = device.line.level
    device.read(Register.INTERRUPT_STATUS)
    device.write(Register.INTERRUPT_ACK, USED)

    assert kept
    assert not device.line.level


def test_acknowledgement_without_reading_gets_through_the_second_time() -> None:
    """A driver that never reads InterruptStatus is interrupted once too often, not for ever."""
    device = BlockBench()
    raise_used(device)

    device.write(Register.INTERRUPT_ACK, USED)
    once = device.line.level
    device.write(Register.INTERRUPT_ACK, USED)

    assert (once, device.line.level) == (True, False)


def test_interrupt_that_the_guest_asked_for_falls_with_its_acknowledgement() -> None:
    """Its completions were in the ring before it was raised: no read is needed."""
    device = BlockBench()
    device.host.message(QueueInterrupt(NUMBER, 0, device.generations[0]), (), 0)
    risen = device.line.level

    device.write(Register.INTERRUPT_ACK, USED)

    assert (risen, device.line.level) == (True, False)


def test_configuration_change_counts_the_generation_and_interrupts_a_live_driver() -> None:
    """Sections 2.5 and 4.2.2: bit 1."""
    device = bench().start()

    device.device.config_changed()

    assert device.read(Register.CONFIG_GENERATION) == 1
    assert device.read(Register.INTERRUPT_STATUS) == CONFIGURATION
    assert device.line.level


def test_configuration_change_before_driver_ok_interrupts_nobody() -> None:
    """Section 3.1.1: no notifications before DRIVER_OK."""
    device = bench()
    device.negotiate()

    device.device.config_changed()

    assert device.read(Register.CONFIG_GENERATION) == 1
    assert not device.line.level


def test_needs_reset_is_in_the_status_and_tells_the_driver_until_it_resets() -> None:
    """Section 2.1.2."""
    device = bench().start()

    device.device.needs_reset("some-reason")
    said = (device.read(Register.STATUS), device.read(Register.INTERRUPT_STATUS), device.line.level)
    device.write(Register.STATUS, LIVE)
    kept = device.read(Register.STATUS)
    device.write(Register.STATUS, 0)

    assert said == (LIVE | NEEDS_RESET, CONFIGURATION, True)
    assert kept == LIVE | NEEDS_RESET
    assert (device.read(Register.STATUS), device.line.level) == (0, False)


def test_device_that_needed_a_reset_works_after_it() -> None:
    """A new life in all respects."""
    device = BlockBench()
    device.device.needs_reset("some-reason")

    device.start()

    assert device.ask(0, 0, writable=513) == []
    assert [returned.tail for returned in device.complete()] == [0]


# --- state


def test_state_with_completions_that_wait_restores_them_and_the_interrupt() -> None:
    """A flush of the twin sends what the original would have sent."""
    device, twin = BlockBench(), BlockBench()
    device.doorbell(0, Offered(5, bytes(16), 513), interrupt_at=ALWAYS)
    (request,) = device.disk.requests
    device.blk.complete(request.tag, CommandStatus.OK, bytes(512), 0)

    twin.device.restore(device.device.state())

    assert twin.device.state() == device.device.state()
    assert [type(body) for body in twin.bodies()] == [Completions]
    assert twin.line.level


def test_state_remembers_what_no_read_has_shown() -> None:
    """The twin does not take back an interrupt whose completions are on their way, either."""
    device, twin = BlockBench(), BlockBench()
    raise_used(device)

    twin.device.restore(device.device.state())
    twin.write(Register.INTERRUPT_ACK, USED)

    assert twin.line.level
