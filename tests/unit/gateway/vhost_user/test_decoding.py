"""The decoder of messages of a front end."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.errors import DecodeError
from iovirt_dist.gateway.vhost_user.decoding import decode, payload_bytes
from iovirt_dist.gateway.vhost_user.messages import (
    HEADER,
    NEED_REPLY,
    ConfigSpace,
    Inflight,
    Message,
    Region,
    Request,
    VringAddress,
    VringFile,
    VringState,
)
from tests.unit.gateway.vhost_user import front_end
from tests.unit.gateway.vhost_user.front_end import REGION, message, number, single, state, table

EMPTY = [
    Request.GET_FEATURES,
    Request.SET_OWNER,
    Request.RESET_OWNER,
    Request.GET_PROTOCOL_FEATURES,
    Request.GET_QUEUE_NUM,
    Request.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS,
    Request.GET_STATUS,
]
NUMBERS = [Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES, Request.SET_STATUS]
STATES = [
    Request.SET_VRING_NUM,
    Request.SET_VRING_BASE,
    Request.GET_VRING_BASE,
    Request.SET_VRING_ENABLE,
]
VRING_FILES = [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]


@pytest.mark.parametrize("request_", EMPTY)
def test_decode_message_without_payload_has_no_body(request_: Request) -> None:
    """Only the request matters."""
    assert decode(message(request_)) == Message(request_, None, False, ())


@pytest.mark.parametrize("request_", NUMBERS)
def test_decode_number_is_a_u64(request_: Request) -> None:
    """All bits of it."""
    assert decode(number(request_, (1 << 64) - 2, NEED_REPLY)) == Message(request_, (1 << 64) - 2, True, ())


@pytest.mark.parametrize("request_", STATES)
def test_decode_state_has_queue_and_number(request_: Request) -> None:
    """In this order."""
    assert decode(state(request_, 1, 7)).body == VringState(1, 7)


@pytest.mark.parametrize("request_", VRING_FILES)
def test_decode_vring_file_has_queue_and_flag(request_: Request) -> None:
    """A descriptor, or the flag that there is none."""
    assert decode(number(request_, 3), (8,)) == Message(request_, VringFile(3, False), False, (8,))
    assert decode(number(request_, 0x103)).body == VringFile(3, True)


def test_decode_address_is_in_the_order_of_the_wire() -> None:
    """The used ring comes before the available one."""
    assert decode(front_end.address(1, 10, 20, 30)).body == VringAddress(1, 0, 10, 30, 20, 0)


def test_decode_table_takes_as_many_regions_as_it_counts() -> None:
    """User-Mode Linux sends room for two, and says that there is one."""
    assert decode(table([REGION], room=1), (5,)) == Message(Request.SET_MEM_TABLE, (REGION,), False, (5,))
    assert decode(table([REGION] * 8), tuple(range(8))).body == (REGION,) * 8
    assert decode(table([])).body == ()


def test_decode_single_region_has_padding_before_it() -> None:
    """Eight bytes."""
    assert decode(single(Request.ADD_MEM_REG, Region(1, 2, 3, 4)), (5,)).body == Region(1, 2, 3, 4)
    assert decode(single(Request.REM_MEM_REG, Region(1, 2, 3, 4))).body == Region(1, 2, 3, 4)


def test_decode_removal_may_come_with_a_descriptor() -> None:
    """It should not, but some front ends do that; the back end has to close it."""
    assert decode(single(Request.REM_MEM_REG, REGION), (5,)).files == (5,)


def test_decode_config_has_the_bytes_that_it_says() -> None:
    """None is one of the possibilities."""
    assert decode(front_end.config(Request.GET_CONFIG, 4, b"abc")).body == ConfigSpace(4, 0, b"abc")
    assert decode(front_end.config(Request.SET_CONFIG, 4, b"")).body == ConfigSpace(4, 0, b"")


def test_decode_inflight_may_be_padded() -> None:
    """QEMU sends the padding of its structure, others do not."""
    packed = message(Request.GET_INFLIGHT_FD, struct.pack("=QQHH", 1, 2, 3, 4))

    assert decode(packed).body == Inflight(1, 2, 3, 4, 20)
    assert decode(front_end.inflight(Request.SET_INFLIGHT_FD, 1, 3, 4), (5,)).body == Inflight(1, 0, 3, 4, 24)


def test_decode_request_socket_comes_alone() -> None:
    """A descriptor and no payload."""
    assert decode(message(Request.SET_BACKEND_REQ_FD), (5,)).files == (5,)


@pytest.mark.parametrize("request_", [0, 6, 7, 19, 22, 41, 0xFFFF_FFFF])
def test_decode_unknown_request_is_a_message(request_: int) -> None:
    """Whatever it carries; the back end says that it does not know it."""
    decoded = decode(message(request_, b"x" * 24), (5,))

    assert decoded == Message(request_, None, False, (5,))
    assert not decoded.known


@pytest.mark.parametrize(
    ("data", "files", "reason"),
    [
        (b"", (), "header-size"),
        (bytes(11), (), "header-size"),
        (HEADER.pack(1, 0, 0), (), "version"),
        (HEADER.pack(1, 2, 0), (), "version"),
        (HEADER.pack(1, 1 | 4, 0), (), "flags"),
        (HEADER.pack(1, 1 | 16, 0), (), "flags"),
        (HEADER.pack(1, 1, 1025), (), "message-size"),
        (HEADER.pack(1, 1, 0xFFFF_FFFF), (), "message-size"),
        (HEADER.pack(1, 1, 4), (), "payload-size"),
        (message(Request.GET_FEATURES, b"x"), (), "payload-size"),
        (message(Request.SET_FEATURES, bytes(7)), (), "payload-size"),
        (message(Request.SET_FEATURES, bytes(9)), (), "payload-size"),
        (message(Request.SET_VRING_NUM, bytes(12)), (), "payload-size"),
        (message(Request.SET_VRING_ADDR, bytes(39)), (), "payload-size"),
        (message(Request.SET_MEM_TABLE, bytes(4)), (), "payload-size"),
        (message(Request.SET_MEM_TABLE, bytes(9)), (), "payload-size"),
        (message(Request.SET_MEM_TABLE, bytes(8 + 9 * 32)), (), "payload-size"),
        (message(Request.ADD_MEM_REG, bytes(32)), (5,), "payload-size"),
        (message(Request.GET_CONFIG, bytes(11)), (), "payload-size"),
        (message(Request.GET_CONFIG, bytes(12 + 257)), (), "payload-size"),
        (message(Request.GET_INFLIGHT_FD, bytes(22)), (), "payload-size"),
        (message(Request.SET_MEM_TABLE, struct.pack("=II", 2, 0) + bytes(32)), (5, 6), "region-count"),
        (message(Request.SET_MEM_TABLE, struct.pack("=II", 0xFFFF_FFFF, 0)), (), "region-count"),
        (message(Request.GET_CONFIG, struct.pack("=III", 0, 2, 0) + b"x"), (), "config-size"),
        (number(Request.SET_VRING_KICK, 0x200), (5,), "vring-file"),
        (number(Request.SET_VRING_KICK, 0), (), "file-count"),
        (number(Request.SET_VRING_KICK, 0x100), (5,), "file-count"),
        (number(Request.SET_VRING_KICK, 0), (5, 6), "file-count"),
        (message(Request.GET_FEATURES), (5,), "file-count"),
        (message(Request.SET_BACKEND_REQ_FD), (), "file-count"),
        (table([REGION]), (), "file-count"),
        (table([REGION]), (5, 6), "file-count"),
        (table([]), (5,), "file-count"),
        (single(Request.ADD_MEM_REG, REGION), (), "file-count"),
        (single(Request.REM_MEM_REG, REGION), (5, 6), "file-count"),
    ],
)
def test_decode_malformed_is_refused_with_its_reason(data: bytes, files: tuple[int, ...], reason: str) -> None:
    """Each with one word."""
    with pytest.raises(DecodeError) as caught:
        decode(data, files)
    assert caught.value.reason == reason


def test_payload_bytes_of_a_header() -> None:
    """As many as the header says."""
    assert payload_bytes(HEADER.pack(77, 9, 1024)) == 1024
