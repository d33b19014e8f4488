"""Which virtio device is in which slot: the same numbers on all machines."""

from __future__ import annotations

import enum


class VirtioSlot(enum.IntEnum):
    """Number of a machine's virtio-mmio window, and of the virtio device in it (`ArmQueue.device`)."""

    DISK = 0
    CONSOLE = 1
    ENTROPY = 2
    NETWORK = 3
    SERIAL = 4
    """The first serial port of a machine that has no UART (`platform.vm`)."""
