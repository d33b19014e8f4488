"""The strict decoder, reason by reason."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from iovirt_dist.errors import DecodeError, LocalError
from iovirt_dist.wire import codec
from iovirt_dist.wire.codec import decode, encode
from iovirt_dist.wire.messages import Interrupt, Ping, Submit, TrapReply

PING = [4, 1]


def packed(*envelope: Any) -> list[bytes]:
    """An envelope frame of any content."""
    return [msgpack.packb(list(envelope))]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "no-frames"),
        ([b""], "not-msgpack"),
        ([b"\xc1"], "not-msgpack"),
        ([b"".join([*encode(1, 1, 1, 1, Ping(1)), b"\0"])], "not-msgpack"),
        ([encode(1, 1, 1, 1, Ping(1))[0][:-1]], "not-msgpack"),
        ([b"\x91" * 100_000], "bad-message"),
        ([b"\xdd\xff\xff\xff\xff"], "not-msgpack"),
        ([b"\xdf\xff\xff\xff\xff"], "bad-message"),
        ([b"\x81\x01\x02"], "bad-message"),
        ([b"\xc6\xff\xff\xff\xff"], "not-msgpack"),
        ([b"\xc7\x01\x05x"], "bad-message"),
        ([b"\xa2\xff\xff"], "bad-message"),
        ([bytes((1 << 17) + 1)], "envelope-size"),
        ([encode(1, 1, 1, 1, Ping(1))[0], b"x"], "unexpected-payload"),
        ([encode(1, 1, 1, 1, TrapReply(1, 1))[0], *[b""] * 1025], "payload-frames"),
        ([encode(1, 1, 1, 1, TrapReply(1, 1))[0], bytes(9 << 20), bytes(8 << 20)], "payload-size"),
        ([msgpack.packb([1, 1, 1, 1])[:-1] + b"\x92\x03\xa2\xff\xff"], "bad-message"),
        ([b"\x95\x01\x01\x00\x00\x93\x03\xa2\xff\xff\xa0"], "not-msgpack"),
        (packed(1, 1, 1, 1), "bad-message"),
        (packed(1, 1, 1, 1, PING, 1), "bad-message"),
        (packed(True, 1, 1, 1, PING), "bad-message"),
        (packed(1.0, 1, 1, 1, PING), "bad-message"),
        (packed("1", 1, 1, 1, PING), "bad-message"),
        (packed(-1, 1, 1, 1, PING), "bad-message"),
        (packed(1 << 63, 1, 1, 1, PING), "bad-message"),
        (packed(1, 1, 1, 1, []), "bad-message"),
        (packed(1, 1, 1, 1, [99, 1]), "bad-message"),
        (packed(1, 1, 1, 1, [True, 1]), "bad-message"),
        (packed(1, 1, 1, 1, [4, 1, 2]), "bad-message"),
        (packed(1, 1, 1, 1, [18, 256, 0]), "bad-message"),
        (packed(1, 1, 1, 1, [18, True, 0]), "bad-message"),
        (packed(1, 1, 1, 1, [3, "no name!", ""]), "bad-message"),
        (packed(1, 1, 1, 1, [3, "", ""]), "bad-message"),
        (packed(1, 1, 1, 1, [3, "ok\n", ""]), "bad-message"),
        (packed(1, 1, 1, 1, [32, "text"]), "bad-message"),
        (packed(1, 1, 1, 1, [17, 1, 1 << 63, -2, 0]), "bad-message"),
        (packed(1, 1, 1, 1, None), "bad-message"),
    ],
)
def test_decode_of_wrong_bytes_raises_its_reason(frames: list[bytes], reason: str) -> None:
    """Each kind of wrong input has one stable reason."""
    with pytest.raises(DecodeError) as caught:
        decode(frames)
    assert caught.value.reason == reason


def test_decode_of_largest_fields_works() -> None:
    """The bounds themselves are allowed."""
    body = TrapReply((1 << 63) - 1, (1 << 64) - 1, 63, (1 << 64) - 1)
    epoch = (1 << 63) - 1
    envelope, payload = decode(encode(epoch, epoch, epoch, epoch, body, [b"x"] * codec.MAX_PAYLOAD_FRAMES))
    assert (envelope.epoch, envelope.peer_epoch, envelope.body) == (epoch, epoch, body)
    assert len(payload) == codec.MAX_PAYLOAD_FRAMES


def test_payload_is_not_copied() -> None:
    """A disk block passes through as it is."""
    block = bytearray(512)
    frames = encode(1, 1, 1, 1, Submit(b"x"), [block])
    assert frames[1] is block
    assert decode(frames)[1][0] is block


@pytest.mark.parametrize("payload", [[b""] * 1025, [bytes(9 << 20)] * 2])
def test_encode_of_too_much_payload_is_our_error(payload: list[bytes]) -> None:
    """What the other side would refuse is not sent."""
    with pytest.raises(LocalError, match="payload"):
        encode(1, 1, 1, 1, Submit(b"x"), payload)


def test_decode_accepts_any_buffer() -> None:
    """Transports give bytes or memoryviews."""
    frame = encode(1, 2, 3, 4, Interrupt(1, 5))[0]
    assert decode([memoryview(frame)]) == decode([bytearray(frame)]) == decode([frame])
