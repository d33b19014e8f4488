"""Registers of the virtio-mmio transport, version 2 (section 4.2.2), and the device status (section 2.1).

Control registers are 32 bits wide, little-endian, and accessed whole; configuration space follows at `Register.CONFIG`.
"""

from __future__ import annotations

import enum

MAGIC = 0x7472_6976
"""The characters "virt", little-endian."""
VERSION = 2
VENDOR = 0x5649_4F49
"""What our devices say in VendorID: the characters "IOIV", little-endian. Its meaning is left to the implementation."""
ABSENT_REGION = 0xFFFF_FFFF_FFFF_FFFF
"""Length and base address of a shared memory region that does not exist."""


class Register(enum.IntEnum):
    """Offsets from the base of the window, bytes. R: driver reads; W: driver writes."""

    MAGIC_VALUE = 0x000
    """R."""
    VERSION = 0x004
    """R."""
    DEVICE_ID = 0x008
    """R: `features.DeviceId`; 0 is an empty slot."""
    VENDOR_ID = 0x00C
    """R."""
    DEVICE_FEATURES = 0x010
    """R: 32 of the offered features, chosen by DEVICE_FEATURES_SEL."""
    DEVICE_FEATURES_SEL = 0x014
    """W."""
    DRIVER_FEATURES = 0x020
    """W: 32 of the accepted features, chosen by DRIVER_FEATURES_SEL."""
    DRIVER_FEATURES_SEL = 0x024
    """W."""
    QUEUE_SEL = 0x030
    """W: the queue that the queue registers mean."""
    QUEUE_NUM_MAX = 0x034
    """R: largest Queue Size; 0 for a queue that does not exist."""
    QUEUE_NUM = 0x038
    """W: Queue Size."""
    QUEUE_READY = 0x044
    """RW."""
    QUEUE_NOTIFY = 0x050
    """W: the number of the queue that has new buffers."""
    INTERRUPT_STATUS = 0x060
    """R: `InterruptBit`."""
    INTERRUPT_ACK = 0x064
    """W: the bits that were handled."""
    STATUS = 0x070
    """RW: `Status`; writing 0 resets."""
    QUEUE_DESC_LOW = 0x080
    """W: address of the descriptor area."""
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    """W: address of the driver area."""
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    """W: address of the device area."""
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_SEL = 0x0AC
    """W: the shared memory region that the next four registers mean."""
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    SHM_BASE_LOW = 0x0B8
    SHM_BASE_HIGH = 0x0BC
    QUEUE_RESET = 0x0C0
    """RW, with RING_RESET only."""
    CONFIG_GENERATION = 0x0FC
    """R: changes with the configuration (section 2.5)."""
    CONFIG = 0x100
    """Configuration space; its fields are accessed at their own width."""


class Status(enum.IntFlag):
    """Device status (section 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    DEVICE_NEEDS_RESET = 64
    FAILED = 128


class InterruptBit(enum.IntFlag):
    """Why the device interrupts (section 4.2.2)."""

    USED_BUFFER = 1
    CONFIGURATION = 2
