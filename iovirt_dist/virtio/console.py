"""Formats of the console device (section 5.3)."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

RECEIVE = 0
"""Number of port 0's receive queue: device-writable buffers that take input."""
TRANSMIT = 1
"""Number of port 0's transmit queue: device-readable buffers of output."""
CONTROL_RECEIVE = 2
"""With MULTIPORT only, as is `CONTROL_TRANSMIT`."""
CONTROL_TRANSMIT = 3
CONTROL = struct.Struct("<IHH")
"""Control message (section 5.3.6.2): port u32, `ConsoleEvent` u16, value u16."""
EMERGENCY_WRITE_OFFSET = 8
"""Where `emerg_wr` lies in configuration space: 4 bytes whose lowest is transmitted (section 5.3.5.1)."""
_CONFIG = struct.Struct("<HHII")
CONFIG_BYTES = _CONFIG.size
"""12."""


class ConsoleFeature(enum.IntEnum):
    """Feature bits (section 5.3.3)."""

    SIZE = 0
    MULTIPORT = 1
    EMERG_WRITE = 2


class ConsoleEvent(enum.IntEnum):
    """Events of control messages (section 5.3.6.2)."""

    DEVICE_READY = 0
    DEVICE_ADD = 1
    DEVICE_REMOVE = 2
    PORT_READY = 3
    CONSOLE_PORT = 4
    RESIZE = 5
    PORT_OPEN = 6
    PORT_NAME = 7


class ConsoleConfig(NamedTuple):
    """Configuration space (section 5.3.4): columns, then rows.

    Drivers in use read `cols` first; some revisions of the document list the two the other way round.

    Attributes:
        cols: SIZE: width in characters.
        rows: SIZE: height in characters.
        max_nr_ports: MULTIPORT.
        emerg_wr: EMERG_WRITE: write only.
    """

    cols: int = 0
    rows: int = 0
    max_nr_ports: int = 1
    emerg_wr: int = 0

    def pack(self) -> bytes:
        """Return the 12 bytes of configuration space.

        Raises:
            struct.error: A value does not fit its field.
        """
        return _CONFIG.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> ConsoleConfig:
        """Decode exactly `CONFIG_BYTES` bytes.

        Raises:
            struct.error: The length is another.
        """
        return cls(*_CONFIG.unpack(data))
