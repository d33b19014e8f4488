"""The one decoder of what a front end sends.

Each request has one layout, and a fixed number of descriptors. What is anything else is no message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.gateway.vhost_user.messages import (
    ADDRESS,
    CONFIG,
    HEADER,
    INFLIGHT,
    MAX_CONFIG_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_REGIONS,
    NEED_REPLY,
    REGION,
    STATE,
    TABLE,
    U64,
    VERSION,
    VRING_INDEX,
    VRING_NO_FILE,
    Body,
    ConfigSpace,
    Inflight,
    Message,
    Region,
    Request,
    VringAddress,
    VringFile,
    VringState,
)

_SINGLE_REGION_BYTES: Final = 8 + REGION.size
_INFLIGHT_PADDED_BYTES: Final = 24


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


def _no_body(payload: bytes) -> None:
    del payload


def _number(payload: bytes) -> int:
    number: int = U64.unpack(payload)[0]
    return number


def _state(payload: bytes) -> VringState:
    return VringState(*STATE.unpack(payload))


def _address(payload: bytes) -> VringAddress:
    return VringAddress(*ADDRESS.unpack(payload))


def _vring_file(payload: bytes) -> VringFile:
    value = _number(payload)
    if value & ~(VRING_INDEX | VRING_NO_FILE):
        raise DecodeError("vring-file", f"{value:#x}")
    return VringFile(value & VRING_INDEX, bool(value & VRING_NO_FILE))


def _table(payload: bytes) -> tuple[Region, ...]:
    """The count tells how many regions there are; User-Mode Linux always sends room for two."""
    count = TABLE.unpack_from(payload)[0]
    if count > (len(payload) - TABLE.size) // REGION.size:
        raise DecodeError("region-count", f"{count} regions in {len(payload)} bytes")
    return tuple(Region(*REGION.unpack_from(payload, TABLE.size + REGION.size * at)) for at in range(count))


def _region(payload: bytes) -> Region:
    return Region(*REGION.unpack_from(payload, _SINGLE_REGION_BYTES - REGION.size))


def _config(payload: bytes) -> ConfigSpace:
    offset, size, flags = CONFIG.unpack_from(payload)
    data = payload[CONFIG.size :]
    if size != len(data):
        raise DecodeError("config-size", f"{size} bytes, {len(data)} sent")
    return ConfigSpace(offset, flags, data)


def _inflight(payload: bytes) -> Inflight:
    size_bytes, file_offset, queues, queue_size = INFLIGHT.unpack_from(payload)
    return Inflight(size_bytes, file_offset, queues, queue_size, len(payload))


_EMPTY: Final = _Format((0,), _no_body)
_ONE_U64: Final = _Format((U64.size,), _number)
_ONE_STATE: Final = _Format((STATE.size,), _state)
_ONE_FILE: Final = _Format((U64.size,), _vring_file, (0, 1))
_CONFIG_SPACE: Final = _Format(range(CONFIG.size, CONFIG.size + MAX_CONFIG_BYTES + 1), _config)
_TABLE_SIZES: Final = range(TABLE.size, TABLE.size + REGION.size * MAX_REGIONS + 1, REGION.size)
_INFLIGHT_SIZES: Final = (INFLIGHT.size, _INFLIGHT_PADDED_BYTES)

_FORMATS: Final[dict[Request, _Format]] = {
    Request.GET_FEATURES: _EMPTY,
    Request.SET_FEATURES: _ONE_U64,
    Request.SET_OWNER: _EMPTY,
    Request.RESET_OWNER: _EMPTY,
    Request.SET_MEM_TABLE: _Format(_TABLE_SIZES, _table, range(MAX_REGIONS + 1)),
    Request.SET_VRING_NUM: _ONE_STATE,
    Request.SET_VRING_ADDR: _Format((ADDRESS.size,), _address),
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
