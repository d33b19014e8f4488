"""Formats of the NBD protocol, newstyle. All numbers are big-endian.

Source: NetworkBlockDevice/nbd, doc/proto.md; sections are named here by their titles.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

# --- handshake phase ("Newstyle negotiation", "Fixed newstyle negotiation")

INIT_MAGIC: Final = 0x4E42444D41474943
"""``NBDMAGIC``."""
OPTION_MAGIC: Final = 0x49484156454F5054
"""``IHAVEOPT``."""
REPLY_MAGIC: Final = 0x0003E889045565A9
GREETING: Final = struct.Struct(">QQH")
"""Server's first words: `INIT_MAGIC`, `OPTION_MAGIC`, handshake flags."""
CLIENT_FLAGS: Final = struct.Struct(">I")
OPTION: Final = struct.Struct(">QII")
"""Head of an option: `OPTION_MAGIC`, option, length of its data."""
OPTION_REPLY: Final = struct.Struct(">QIII")
"""Head of a reply: `REPLY_MAGIC`, option, reply type, length of its data."""
EXPORT: Final = struct.Struct(">QH")
"""Answer to EXPORT_NAME: size in bytes, transmission flags; then `EXPORT_PADDING` zeroes unless NO_ZEROES holds."""
EXPORT_PADDING: Final = 124
LENGTH: Final = struct.Struct(">I")
"""Length of a string in an option or a reply."""
COUNT: Final = struct.Struct(">H")
"""Number of information requests of INFO and GO, and each of them."""
INFO_EXPORT: Final = struct.Struct(">HQH")
"""`Info.EXPORT`, size in bytes, transmission flags."""
INFO_BLOCK_SIZE: Final = struct.Struct(">HIII")
"""`Info.BLOCK_SIZE`, minimum, preferred and maximum block size in bytes."""
MAX_NAME_BYTES: Final = 4096
"""Most bytes of a string ("Conventions")."""


class HandshakeFlag(enum.IntFlag):
    """Handshake flags of the server, and the same bits of the client."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(enum.IntFlag):
    """What an export can do ("Transmission flags")."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Option(enum.IntEnum):
    """Options of the client ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 10
    SET_META_CONTEXT = 11


class Reply(enum.IntEnum):
    """Types of replies to options ("Option reply types"); errors have bit 31 set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    ERR_UNSUP = 1 << 31 | 1
    ERR_INVALID = 1 << 31 | 3
    ERR_UNKNOWN = 1 << 31 | 6


class Info(enum.IntEnum):
    """Kinds of information in a reply of type INFO ("Option reply types", NBD_REP_INFO)."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


# --- transmission phase ("Request message", "Simple reply message", "Structured reply chunk message")

REQUEST_MAGIC: Final = 0x25609513
REQUEST: Final = struct.Struct(">IHHQQI")
"""`REQUEST_MAGIC`, command flags, command, cookie, offset, length; behind it the data of a WRITE."""
SIMPLE_MAGIC: Final = 0x67446698
SIMPLE_REPLY: Final = struct.Struct(">IIQ")
"""`SIMPLE_MAGIC`, error, cookie; behind it the data of a READ that did not fail."""
CHUNK_MAGIC: Final = 0x668E33EF
CHUNK: Final = struct.Struct(">IHHQI")
"""`CHUNK_MAGIC`, flags, type, cookie, length of what is behind it."""
CHUNK_DATA: Final = struct.Struct(">IHHQIQ")
"""A `CHUNK` of type OFFSET_DATA and the offset; behind it the data."""
CHUNK_ERROR: Final = struct.Struct(">IHHQIIH")
"""A `CHUNK` of type ERROR, the error, and the length of a message."""
CHUNK_DONE: Final = 1
"""Flag of a reply's last chunk."""


class Chunk(enum.IntEnum):
    """Types of chunks ("Structured reply types")."""

    NONE = 0
    OFFSET_DATA = 1
    ERROR = 1 << 15 | 1


class Command(enum.IntEnum):
    """Commands ("Request types")."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class CommandFlag(enum.IntFlag):
    """Flags of commands ("Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2


class NbdError(enum.IntEnum):
    """Errors of replies ("Error values")."""

    OK = 0
    EPERM = 1
    EIO = 5
    EINVAL = 22
    ENOSPC = 28


# --- what we serve

MIN_BLOCK_BYTES: Final = 512
"""Offsets and lengths are multiples of it: a sector of the virtio disk behind."""
PREFERRED_BLOCK_BYTES: Final = 4096
MAX_BLOCK_BYTES: Final = 32 << 20
"""Most data of a READ or WRITE ("Block size constraints": what clients may assume without asking)."""


class Export(NamedTuple):
    """The one disk that a gateway serves.

    Attributes:
        name: What clients call it; they may leave it out.
        size_bytes: Its size, a multiple of `MIN_BLOCK_BYTES`.
        flags: What it can do, without SEND_DF.
        description: For people.
    """

    name: str
    size_bytes: int
    flags: TransmissionFlag
    description: str = ""

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return TransmissionFlag.READ_ONLY in self.flags


def transmission_flags(export: Export, *, structured: bool) -> int:
    """Return what a client is told; a READ is never fragmented, which only structured replies can say."""
    return int(export.flags | (TransmissionFlag.SEND_DF if structured else 0))
