"""The messages of vhost-user (section "Message Specification").

All numbers are in the byte order of the machine. A message is a header and a payload; file descriptors travel beside
it. `decoding` reads those of a front end.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple, TypeAlias

HEADER: Final = struct.Struct("=III")
"""Request, flags, and length of the payload in bytes, u32 each."""

VERSION: Final = 1
"""In the lower two bits of the flags."""
REPLY: Final = 1 << 2
NEED_REPLY: Final = 1 << 3
"""The sender wants a u64, 0 for success, if the request has no reply of its own (section "REPLY_ACK")."""

U64: Final = struct.Struct("=Q")
STATE: Final = struct.Struct("=II")
ADDRESS: Final = struct.Struct("=IIQQQQ")
REGION: Final = struct.Struct("=QQQQ")
TABLE: Final = struct.Struct("=II")
CONFIG: Final = struct.Struct("=III")
INFLIGHT: Final = struct.Struct("=QQHH")

MAX_REGIONS: Final = 8
"""Of one memory table, and so the most descriptors of one message."""
MAX_CONFIG_BYTES: Final = 256
"""Of a device's configuration space."""
MAX_PAYLOAD_BYTES: Final = 1024
"""More than any request has; one that we do not know may have others."""

PROTOCOL_FEATURES: Final = 30
"""Number of the feature bit that says that protocol features can be negotiated."""

VRING_INDEX: Final = 0xFF
"""Bits of the queue's number in messages that carry a descriptor for a queue."""
VRING_NO_FILE: Final = 1 << 8
"""There is no descriptor with it: the queue is to be polled."""


class Request(enum.IntEnum):
    """What a front end asks for (section "Front-end message types"); those that we answer."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class BackendRequest(enum.IntEnum):
    """What we ask a front end for (section "Back-end message types")."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(enum.IntEnum):
    """Numbers of bits (section "Protocol features")."""

    MQ = 0
    REPLY_ACK = 3
    BACKEND_REQ = 5
    CONFIG = 9
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16


class VringState(NamedTuple):
    """A queue and a number about it, u32 each."""

    queue: int
    number: int


class VringAddress(NamedTuple):
    """Where a queue's areas lie, as addresses of the front end's own memory.

    Attributes:
        queue: Its number.
        flags: Bit 0: writes to the used ring are to be logged.
        descriptors: Of the descriptor table.
        used: Of the used ring.
        available: Of the available ring.
        log: Guest address for the log.
    """

    queue: int
    flags: int
    descriptors: int
    used: int
    available: int
    log: int


class VringFile(NamedTuple):
    """The queue that a descriptor is for.

    Attributes:
        queue: Its number, 0..255.
        polled: There is no descriptor.
    """

    queue: int
    polled: bool


class Region(NamedTuple):
    """A piece of guest memory.

    Attributes:
        guest_address: Guest physical address of its first byte.
        size_bytes: Its length.
        user_address: Its first byte's address in the front end's memory.
        file_offset: Where it begins in its file, bytes.
    """

    guest_address: int
    size_bytes: int
    user_address: int
    file_offset: int


class ConfigSpace(NamedTuple):
    """A part of the device's configuration space.

    Attributes:
        offset: Bytes from its start.
        flags: 0 for fields that the driver writes, 1 for a migration.
        data: The part; as long as what is asked for.
    """

    offset: int
    flags: int
    data: bytes


class Inflight(NamedTuple):
    """The memory in which requests in flight are kept.

    Attributes:
        size_bytes: Its length.
        file_offset: Where it begins in its file, bytes.
        queues: Number of queues.
        queue_size: Entries of each.
        packed_bytes: Length of this description: front ends differ in whether they pad it.
    """

    size_bytes: int
    file_offset: int
    queues: int
    queue_size: int
    packed_bytes: int


Body: TypeAlias = (
    int | VringState | VringAddress | VringFile | Region | tuple[Region, ...] | ConfigSpace | Inflight | None
)


class Message(NamedTuple):
    """One request of a front end.

    Attributes:
        request: Which; a plain number if we do not know it.
        body: Its payload; None if it has none, or if the request is not known.
        need_reply: Whether the front end set `NEED_REPLY`.
        files: Descriptors that came with it.
    """

    request: Request | int
    body: Body
    need_reply: bool
    files: tuple[int, ...]

    @property
    def known(self) -> bool:
        """Whether it is a request that we answer."""
        return isinstance(self.request, Request)


OWN_REPLY: Final = frozenset(
    {
        Request.GET_FEATURES,
        Request.GET_VRING_BASE,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_CONFIG,
        Request.GET_INFLIGHT_FD,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_STATUS,
    }
)
"""Requests that have a reply of their own, whether `NEED_REPLY` is set or not."""


def reply(request: int, payload: bytes) -> bytes:
    """Make the reply to a request."""
    return HEADER.pack(request, VERSION | REPLY, len(payload)) + payload


def reply_number(request: int, number: int) -> bytes:
    """Make a reply that is one u64: a set of features, a count, or 0 for success."""
    return reply(request, U64.pack(number))


def reply_state(request: int, state: VringState) -> bytes:
    """Make a reply that is a queue and a number."""
    return reply(request, STATE.pack(*state))


def reply_config(request: int, config: ConfigSpace) -> bytes:
    """Make a reply that is a part of the configuration space."""
    return reply(request, CONFIG.pack(config.offset, len(config.data), config.flags) + config.data)


def reply_inflight(request: int, inflight: Inflight) -> bytes:
    """Make a reply that describes memory for requests in flight, as long as the request was."""
    size_bytes, file_offset, queues, queue_size, packed_bytes = inflight
    return reply(request, INFLIGHT.pack(size_bytes, file_offset, queues, queue_size).ljust(packed_bytes, b"\0"))


def backend_request(request: BackendRequest, payload: bytes = b"") -> bytes:
    """Make a request of ours; none wants a reply, since the channel may be one way (User-Mode Linux gives a pipe)."""
    return HEADER.pack(request, VERSION, len(payload)) + payload
