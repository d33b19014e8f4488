"""Tests of what a kernel on the `pc` machine is told of its virtio devices."""

from __future__ import annotations

from iovirt_dist.platform.pc import LEVEL_TRIGGERED_IRQS, VIRTIO_SLOTS, virtio_words
from iovirt_dist.platform.slots import VirtioSlot


def test_virtio_words_of_all_slots_are_linux_words_in_slot_order() -> None:
    """Size, base and ISA interrupt, whatever the order in which the slots are given."""
    words = virtio_words(reversed([*VirtioSlot][:VIRTIO_SLOTS]))

    assert words == [
        "virtio_mmio.device=4K@0xfeb00000:5",
        "virtio_mmio.device=4K@0xfeb01000:9",
        "virtio_mmio.device=4K@0xfeb02000:10",
        "virtio_mmio.device=4K@0xfeb03000:11",
    ]


def test_virtio_words_of_no_device_are_none() -> None:
    """Nothing is announced."""
    assert virtio_words([]) == []


def test_virtio_words_of_one_slot_name_its_own_window() -> None:
    """The entropy device alone stays in the third window."""
    assert virtio_words([VirtioSlot.ENTROPY]) == ["virtio_mmio.device=4K@0xfeb02000:10"]


def test_level_triggered_irqs_are_those_of_the_windows() -> None:
    """The bytes that firmware writes to 4D0h and 4D1h."""
    assert LEVEL_TRIGGERED_IRQS.to_bytes(2, "little") == b"\x20\x0e"
