"""Where the `pc` machine has its virtio-mmio windows, and how a kernel learns of them.

A PC has no device tree, and these windows are on no bus that can be asked. Kernels take them from their command line,
in the form of Linux's parameter ``virtio_mmio.device=SIZE@BASE:IRQ`` (Linux, drivers/virtio/virtio_mmio.c, comment
"Virtio mmio command line"). The first address is that of QEMU's `microvm` machine, above any RAM that the machine has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from iovirt_dist.platform.slots import VirtioSlot

VIRTIO_BASE: Final = 0xFEB0_0000
VIRTIO_STRIDE: Final = 0x1000
VIRTIO_SLOTS: Final = 4
VIRTIO_IRQS: Final = (5, 9, 10, 11)
"""ISA interrupt of each slot: those that a PC leaves free; all are level-triggered."""
LEVEL_TRIGGERED_IRQS: Final = sum(1 << irq for irq in VIRTIO_IRQS)
"""What firmware programs into the edge/level control registers 4D0h (low byte) and 4D1h (PIIX3 data sheet, section
"Edge/Level Control Registers")."""


def virtio_words(slots: Iterable[VirtioSlot]) -> list[str]:
    """Return the words for a kernel's command line that announce the virtio devices in these slots, in their order."""
    return [
        f"virtio_mmio.device={VIRTIO_STRIDE >> 10}K@{VIRTIO_BASE + slot * VIRTIO_STRIDE:#x}:{VIRTIO_IRQS[slot]}"
        for slot in sorted(slots)
    ]
