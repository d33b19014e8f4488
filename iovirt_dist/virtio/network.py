"""Formats of the network device (section 5.1), without offloads and control queue messages."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

RECEIVE = 0
"""Number of the receive queue: device-writable buffers, each for a header and a frame."""
TRANSMIT = 1
"""Number of the transmit queue: device-readable buffers, each a header and a frame."""
HEADER = struct.Struct("<BBHHHHH")
"""In front of each frame (section 5.1.6): flags u8, gso type u8, header length, segment size, checksum start, checksum
offset, number of buffers, u16 each. `num_buffers` is always there with VERSION_1."""
HEADER_BYTES = HEADER.size
"""12."""
MAC_BYTES = 6
MTU_MIN = 68
_CONFIG = struct.Struct("<6sHHHIBBHI")
CONFIG_BYTES = _CONFIG.size
"""24."""
SPEED_UNKNOWN = 0xFFFF_FFFF
DUPLEX_UNKNOWN = 0xFF


class NetworkFeature(enum.IntEnum):
    """Feature bits (section 5.1.3)."""

    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    HOST_USO = 56
    HASH_REPORT = 57
    GUEST_HDRLEN = 59
    RSS = 60
    RSC_EXT = 61
    STANDBY = 62
    SPEED_DUPLEX = 63


class LinkStatus(enum.IntFlag):
    """Field `status` of configuration space (section 5.1.4)."""

    LINK_UP = 1
    ANNOUNCE = 2


class NetworkConfig(NamedTuple):
    """Configuration space (section 5.1.4); a field is valid if its feature was negotiated.

    Attributes:
        mac: MAC: 6 bytes.
        status: STATUS: `LinkStatus`.
        max_virtqueue_pairs: MQ or RSS.
        mtu: MTU: bytes, 68 to 65535.
        speed: SPEED_DUPLEX: Mbit/s.
        duplex: SPEED_DUPLEX: 1 for full duplex.
        rss_max_key_size: RSS or HASH_REPORT.
        rss_max_indirection_table_length: RSS.
        supported_hash_types: RSS or HASH_REPORT.
    """

    mac: bytes
    status: int = 0
    max_virtqueue_pairs: int = 1
    mtu: int = 1500
    speed: int = SPEED_UNKNOWN
    duplex: int = DUPLEX_UNKNOWN
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: int = 0

    def pack(self) -> bytes:
        """Return the 24 bytes of configuration space.

        Raises:
            struct.error: A value does not fit its field.
        """
        return _CONFIG.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> NetworkConfig:
        """Decode exactly `CONFIG_BYTES` bytes.

        Raises:
            struct.error: The length is another.
        """
        return cls(*_CONFIG.unpack(data))
