"""Host control on the wire: what is understood, and that nothing else is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.errors import DecodeError
from iovirt_dist.runtime.control_messages import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Agreed,
    AnyReply,
    AnyRequest,
    ChangeScaling,
    ProcessReport,
    ReadScaling,
    ReadStatus,
    Refused,
    ScalingRead,
    StatusRead,
    decode_reply,
    decode_request,
    encode,
)
from iovirt_dist.topology.scaling import Scaling

SCALING = Scaling(3, "d" * 64, {"x": 0, "y": 1024}, {"y-1": "hv-a"})


@pytest.mark.parametrize("request_", [ReadStatus(1), ReadScaling(2), ChangeScaling(3, 2, SCALING, True)])
def test_request_arrives_as_it_was_sent(request_: AnyRequest) -> None:
    """In one frame."""
    assert decode_request([encode(request_)]) == request_


@pytest.mark.parametrize(
    "reply",
    [
        StatusRead(1, 5, [ProcessReport("_up", True, b"{}"), ProcessReport("hv0", False, b"")]),
        ScalingRead(2, "d" * 64, SCALING),
        Agreed(3),
        Refused(4, "no"),
    ],
)
def test_reply_arrives_as_it_was_sent(reply: AnyReply) -> None:
    """In one frame."""
    assert decode_reply([encode(reply)]) == reply


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [encode(ReadStatus(1))] * 2,
        [encode(ReadStatus(1)) + b"\0"],
        [encode(Agreed(1))],
        [b"\x91" * 100_000],
        [msgspec.msgpack.encode([1, -1])],
        [msgspec.msgpack.encode([1, 1 << 63])],
        [msgspec.msgpack.encode([1, True])],
        [msgspec.msgpack.encode([3, 1, 0, {"revision": 1, "counts": {"x": 1025}}, False])],
        [msgspec.msgpack.encode([3, 1, 0, {"revision": 1, "more": 1}, False])],
        [bytes(MAX_REQUEST_BYTES + 1)],
    ],
    ids=range(12),
)
def test_anything_else_is_refused(frames: list[bytes]) -> None:
    """With one error, whatever it is."""
    with pytest.raises(DecodeError):
        decode_request(frames)


def test_reply_that_is_too_long_or_none_is_refused() -> None:
    """As a request is."""
    with pytest.raises(DecodeError):
        decode_reply([bytes(MAX_REPLY_BYTES + 1)])
    with pytest.raises(DecodeError):
        decode_reply([encode(ReadStatus(1))])


@given(
    st.binary(max_size=64)
    | st.recursive(st.integers(-(1 << 63), (1 << 64) - 1) | st.text(), st.lists).map(msgspec.msgpack.encode)
)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """No other exception leaves the decoders."""
    for decode in (decode_request, decode_reply):
        try:
            decode([data])
        except DecodeError as error:
            assert error.reason in ("bad-request", "bad-reply")  # noqa: PT017 - both outcomes are right
