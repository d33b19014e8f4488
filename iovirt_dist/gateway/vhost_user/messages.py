"""The messages of vhost-user (section "Message Specification"), and the one decoder of what a front end sends.

All numbers are in the byte order of the machine. A message is a header and a payload; file descriptors travel beside
it. Each request has one layout, a fixed number of descriptors, and either a reply of its own or none.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from iovirt_dist.errors import DecodeError

HEADER: Final = struct.Struct("=III")
"""Request, flags, and length of the payload in bytes, u32 each."""

VERSION: Final = 1
"""In the lower two bits of the flags."""
REPLY: Final = 1 << 2
NEED_REPLY: Final = 1 << 3
"""The sender wants a u64, 0 for success, if the request has no reply of its own (section "REPLY_ACK")."""

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


class _Format(NamedTuple):
    """How a request looks.

    Attributes:
        sizes: Lengths that its payload may have.
        parse: Makes the body of the payload.
        files: Numbers of descriptors that may come with it.
    """

    sizes: range | tuple[int, ...]
    parse: Callable[[bytes], Body]
    files: range | tuple[int, ...] = (0,)


_U64: Final = struct.Struct("=Q")
_STATE: Final = struct.Struct("=II")
_ADDRESS: Final = struct.Struct("=IIQQQQ")
_REGION: Final = struct.Struct("=QQQQ")
_TABLE: Final = struct.Struct("=II")
_CONFIG: Final = struct.Struct("=III")
_INFLIGHT: Final = struct.Struct("=QQHH")
_SINGLE_REGION_BYTES: Final = 8 + _REGION.size
_INFLIGHT_PADDED_BYTES: Final = 24


def _no_body(payload: bytes) -> None:
    del payload


def _number(payload: bytes) -> int:
    number: int = _U64.unpack(payload)[0]
    return number


def _state(payload: bytes) -> VringState:
    return VringState(*_STATE.unpack(payload))


def _address(payload: bytes) -> VringAddress:
    return VringAddress(*_ADDRESS.unpack(payload))


def _vring_file(payload: bytes) -> VringFile:
    value = _number(payload)
    if value & ~(VRING_INDEX | VRING_NO_FILE):
        raise DecodeError("vring-file", f"{value:#x}")
    return VringFile(value & VRING_INDEX, bool(value & VRING_NO_FILE))


def _table(payload: bytes) -> tuple[Region, ...]:
    """The count tells how many regions there are; User-Mode Linux always sends room for two."""
    count = _TABLE.unpack_from(payload)[0]
    if count > (len(payload) - _TABLE.size) // _REGION.size:
        raise DecodeError("region-count", f"{count} regions in {len(payload)} bytes")
    return tuple(Region(*_REGION.unpack_from(payload, _TABLE.size + _REGION.size * at)) for at in range(count))


def _region(payload: bytes) -> Region:
    return Region(*_REGION.unpack_from(payload, _SINGLE_REGION_BYTES - _REGION.size))


def _config(payload: bytes) -> ConfigSpace:
    offset, size, flags = _CONFIG.unpack_from(payload)
    data = payload[_CONFIG.size :]
    if size != len(data):
        raise DecodeError("config-size", f"{size} bytes, {len(data)} sent")
    return ConfigSpace(offset, flags, data)


def _inflight(payload: bytes) -> Inflight:
    size_bytes, file_offset, queues, queue_size = _INFLIGHT.unpack_from(payload)
    return Inflight(size_bytes, file_offset, queues, queue_size, len(payload))


_EMPTY: Final = _Format((0,), _no_body)
_ONE_U64: Final = _Format((_U64.size,), _number)
_ONE_STATE: Final = _Format((_STATE.size,), _state)
_ONE_FILE: Final = _Format((_U64.size,), _vring_file, (0, 1))
_CONFIG_SPACE: Final = _Format(range(_CONFIG.size, _CONFIG.size + MAX_CONFIG_BYTES + 1), _config)
_TABLE_SIZES: Final = range(_TABLE.size, _TABLE.size + _REGION.size * MAX_REGIONS + 1, _REGION.size)
_INFLIGHT_SIZES: Final = (_INFLIGHT.size, _INFLIGHT_PADDED_BYTES)

_FORMATS: Final[dict[Request, _Format]] = {
    Request.GET_FEATURES: _EMPTY,
    Request.SET_FEATURES: _ONE_U64,
    Request.SET_OWNER: _EMPTY,
    Request.RESET_OWNER: _EMPTY,
    Request.SET_MEM_TABLE: _Format(_TABLE_SIZES, _table, range(MAX_REGIONS + 1)),
    Request.SET_VRING_NUM: _ONE_STATE,
    Request.SET_VRING_ADDR: _Format((_ADDRESS.size,), _address),
    Request.SET_VRING_BASE: _ONE_STATE,
    Request.GET_VRING_BASE: _ONE_STATE,
    Request.SET_VRING_KICK: _ONE_FILE,
    Request.SET_VRING_CALL: _ONE_FILE,
    Request.SET_VRING_ERR: _ONE_FILE,
    Request.GET_PROTOCOL_FEATURES: _EMPTY,
    Request.SET_PROTOCOL_FEATURES: _ONE_U64,
    Request.GET_QUEUE_NUM: _EMPTY,
    Request.SET_VRING_ENABLE: _ONE_STATE,
    Request.SET_BACKEND_REQ_FD: _Format((0,), _no_body, (1,)),
    Request.GET_CONFIG: _CONFIG_SPACE,
    Request.SET_CONFIG: _CONFIG_SPACE,
    Request.GET_INFLIGHT_FD: _Format(_INFLIGHT_SIZES, _inflight),
    Request.SET_INFLIGHT_FD: _Format(_INFLIGHT_SIZES, _inflight, (1,)),
    Request.RESET_DEVICE: _EMPTY,
    Request.GET_MAX_MEM_SLOTS: _EMPTY,
    Request.ADD_MEM_REG: _Format((_SINGLE_REGION_BYTES,), _region, (1,)),
    Request.REM_MEM_REG: _Format((_SINGLE_REGION_BYTES,), _region, (0, 1)),  # one is against the rules, yet is sent
    Request.SET_STATUS: _ONE_U64,
    Request.GET_STATUS: _EMPTY,
}

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


def payload_bytes(header: bytes) -> int:
    """Return how long the payload behind a header is.

    Args:
        header: `HEADER.size` bytes.

    Raises:
        DecodeError: Reason ``version``, ``flags`` or ``message-size``.
    """
    _, flags, size = HEADER.unpack(header)
    if flags & 3 != VERSION:
        raise DecodeError("version", str(flags & 3))
    if flags & ~(3 | NEED_REPLY):
        raise DecodeError("flags", f"{flags:#x}")
    if size > MAX_PAYLOAD_BYTES:
        raise DecodeError("message-size", f"{size} bytes")
    return int(size)


def decode(data: bytes, files: tuple[int, ...] = ()) -> Message:
    """Decode one whole message.

    Args:
        data: Header and payload.
        files: Descriptors that came with it; they stay the caller's if this raises.

    Raises:
        DecodeError: Reason ``header-size``, those of `payload_bytes`, ``payload-size``, ``file-count``,
            ``region-count``, ``config-size`` or ``vring-file``.
    """
    if len(data) < HEADER.size:
        raise DecodeError("header-size", f"{len(data)} bytes")
    number, flags, _ = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    if payload_bytes(data[: HEADER.size]) != len(payload):
        raise DecodeError("payload-size", f"{len(payload)} bytes follow the header")
    need_reply = bool(flags & NEED_REPLY)
    try:
        request = Request(number)
    except ValueError:
        return Message(number, None, need_reply, files)
    form = _FORMATS[request]
    if len(payload) not in form.sizes:
        raise DecodeError("payload-size", f"{request.name} with {len(payload)} bytes")
    if len(files) not in form.files:
        raise DecodeError("file-count", f"{request.name} with {len(files)} descriptors")
    body = form.parse(payload)
    if isinstance(body, VringFile) and body.polled == bool(files):
        raise DecodeError("file-count", f"{request.name}: the flag says otherwise")
    if request is Request.SET_MEM_TABLE and isinstance(body, tuple) and len(body) != len(files):
        raise DecodeError("file-count", f"{len(files)} descriptors for {len(body)} regions")
    return Message(request, body, need_reply, files)


def reply(request: int, payload: bytes) -> bytes:
    """Make the reply to a request."""
    return HEADER.pack(request, VERSION | REPLY, len(payload)) + payload


def reply_number(request: int, number: int) -> bytes:
    """Make a reply that is one u64: a set of features, a count, or 0 for success."""
    return reply(request, _U64.pack(number))


def reply_state(request: int, state: VringState) -> bytes:
    """Make a reply that is a queue and a number."""
    return reply(request, _STATE.pack(*state))


def reply_config(request: int, config: ConfigSpace) -> bytes:
    """Make a reply that is a part of the configuration space."""
    return reply(request, _CONFIG.pack(config.offset, len(config.data), config.flags) + config.data)


def reply_inflight(request: int, inflight: Inflight) -> bytes:
    """Make a reply that describes memory for requests in flight, as long as the request was."""
    size_bytes, file_offset, queues, queue_size, packed_bytes = inflight
    return reply(request, _INFLIGHT.pack(size_bytes, file_offset, queues, queue_size).ljust(packed_bytes, b"\0"))


def backend_request(request: BackendRequest, payload: bytes = b"") -> bytes:
    """Make a request of ours; none wants a reply, since the channel may be one way (User-Mode Linux gives a pipe)."""
    return HEADER.pack(request, VERSION, len(payload)) + payload
