"""Messages to a front end."""

from __future__ import annotations

import struct

from iovirt_dist.gateway.vhost_user.messages import (
    BackendRequest,
    ConfigSpace,
    Inflight,
    Request,
    VringState,
    backend_request,
    reply,
    reply_config,
    reply_inflight,
    reply_number,
    reply_state,
)


def header(request: int, flags: int, size: int) -> bytes:
    """Return a header."""
    return struct.pack("=III", request, flags, size)


def test_reply_has_version_and_reply_flag_and_no_other() -> None:
    """User-Mode Linux compares all of the flags."""
    assert reply(24, b"") == header(24, 5, 0)


def test_replies_have_the_layout_of_their_payload() -> None:
    """Number, state, configuration."""
    config = ConfigSpace(4, 0, b"abc")

    assert reply_number(1, 7) == header(1, 5, 8) + struct.pack("=Q", 7)
    assert reply_state(11, VringState(1, 2)) == header(11, 5, 8) + struct.pack("=II", 1, 2)
    assert reply_config(24, config) == header(24, 5, 15) + struct.pack("=III", 4, 3, 0) + b"abc"


def test_reply_inflight_is_as_long_as_the_request_was() -> None:
    """A front end checks that."""
    fields = struct.pack("=QQHH", 128, 0, 2, 8)

    assert reply_inflight(Request.GET_INFLIGHT_FD, Inflight(128, 0, 2, 8, 20)) == header(31, 5, 20) + fields
    assert reply_inflight(Request.GET_INFLIGHT_FD, Inflight(128, 0, 2, 8, 24)) == header(31, 5, 24) + fields + bytes(4)


def test_backend_request_wants_no_reply() -> None:
    """Version, and nothing else."""
    assert backend_request(BackendRequest.CONFIG_CHANGE_MSG) == header(2, 1, 0)
