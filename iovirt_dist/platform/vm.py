"""Map of the `vm` machine, which is nothing but virtio-mmio windows.

Its CPU and RAM are those of a virtual machine monitor, whose devices a gateway joins to the hypervisor. The gateway
programs these windows in the guest's stead, so that the addresses are between those two and no kernel sees them.
There is no interrupt controller either: input n of the CPU is the interrupt of slot n.
"""

from __future__ import annotations

from typing import Final

VIRTIO_BASE: Final = 0x1000_1000
VIRTIO_STRIDE: Final = 0x1000
VIRTIO_SLOTS: Final = 8


def window(slot: int) -> int:
    """Return the address of a slot's window."""
    return VIRTIO_BASE + slot * VIRTIO_STRIDE
