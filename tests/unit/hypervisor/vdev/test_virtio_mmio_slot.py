"""A virtio-mmio slot without a device."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.virtio_mmio_slot import VirtioMmioEmptySlot
from iovirt_dist.platform import virt


def test_empty_slot_identifies_itself_with_device_id_zero() -> None:
    """Magic "virt", version 2, device 0: a driver looks and leaves (VIRTIO 1.2, 4.2.2.2)."""
    slot = VirtioMmioEmptySlot()

    assert slot.read(0, 4, 0).to_bytes(4, "little") == b"virt"
    assert [slot.read(offset, 4, 0) for offset in (4, 8, 12)] == [2, 0, 0]


def test_empty_slot_takes_nothing_and_reads_zero() -> None:
    """Status, queues and configuration space are not there."""
    slot = VirtioMmioEmptySlot()

    for offset in range(0, virt.VIRTIO_STRIDE, 4):
        slot.write(offset, 4, 0xFFFF_FFFF, 0)

    assert {slot.read(offset, 4, 0) for offset in range(16, virt.VIRTIO_STRIDE, 4)} == {0}


def test_empty_slot_answers_bytes_of_its_header() -> None:
    """Narrow reads see part of a register."""
    slot = VirtioMmioEmptySlot()

    assert bytes(slot.read(offset, 1, 0) for offset in range(5)) == b"virt\x02"
