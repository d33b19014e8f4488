"""The one strict, bounded decoder and its encoder.

Everything that comes off a wire passes `decode`: the declared messages drive it, so the first value of a wrong type,
range or length ends it before anything is built, and nesting cannot be deeper than the declarations. Types are exact
(True is no integer, text is no bytes). Whatever is wrong is one `DecodeError` with a reason to count; no other
exception leaves this module.

msgpack encodes. msgspec decodes the same format, because msgpack's own `unpackb` builds whatever the bytes say first
(64 KB of nested array headers: 80 MB) and takes 0.8 us more per message with the check after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, get_args

import msgpack
import msgspec

from iovirt_dist.errors import DecodeError, LocalError
from iovirt_dist.wire.messages import Complete, Envelope, Message, Submit, Trap, TrapReply
from iovirt_dist.wire.queue_messages import Completions, Doorbell
from iovirt_dist.wire.syscall_messages import SystemCall, SystemCallReply

Buffer: TypeAlias = bytes | bytearray | memoryview
Frames: TypeAlias = list[Buffer]
"""An envelope frame followed by payload frames."""

MAX_ENVELOPE_BYTES = 1 << 17
MAX_PAYLOAD_FRAMES = 1024
MAX_PAYLOAD_BYTES = 16 << 20
"""Sum over the payload frames of one message."""

_MAY_CARRY_PAYLOAD = (Trap, TrapReply, Submit, Complete, Doorbell, Completions, SystemCall, SystemCallReply)
_decode = msgspec.msgpack.Decoder(Envelope).decode
_pack = msgpack.Packer().pack
_fields = msgspec.structs.astuple
_TAGS = {kind: kind.__struct_config__.tag for kind in get_args(Message)}


def encode(
    epoch: int, peer_epoch: int, sequence: int, acknowledged: int, body: Message, payload: Sequence[Buffer] = ()
) -> Frames:
    """Build the frames of one message.

    Args:
        epoch: The sender's life.
        peer_epoch: The receiver's life, 0 if unknown.
        sequence: Sequence number, 0 for session messages.
        acknowledged: Last in-order sequence number received.
        body: The message; its fields must be within their declared ranges.
        payload: Raw frames that follow, not copied.

    Returns:
        The envelope frame followed by the payload frames.

    Raises:
        LocalError: The payload is more than a message may carry.
    """
    if payload and (len(payload) > MAX_PAYLOAD_FRAMES or sum(map(len, payload)) > MAX_PAYLOAD_BYTES):
        raise LocalError(f"payload is more than {MAX_PAYLOAD_FRAMES} frames or {MAX_PAYLOAD_BYTES} bytes")
    frame: bytes = _pack((epoch, peer_epoch, sequence, acknowledged, (_TAGS[type(body)], *_fields(body))))
    return [frame, *payload]


def decode(frames: Sequence[Buffer]) -> tuple[Envelope, Sequence[Buffer]]:
    """Check and decode the frames of one message.

    Args:
        frames: As received; the peer's identity frame already taken off.

    Returns:
        The envelope and the payload frames (the same objects, not copied).

    Raises:
        DecodeError: Reason ``no-frames``, ``envelope-size``, ``payload-frames``, ``payload-size``, ``not-msgpack``,
            ``bad-message`` or ``unexpected-payload``.
    """
    if not frames:
        raise DecodeError("no-frames")
    head = frames[0]
    if len(head) > MAX_ENVELOPE_BYTES:
        raise DecodeError("envelope-size", f"{len(head)} bytes, at most {MAX_ENVELOPE_BYTES}")
    payload = frames[1:]
    if payload:
        if len(payload) > MAX_PAYLOAD_FRAMES:
            raise DecodeError("payload-frames", f"{len(payload)} frames, at most {MAX_PAYLOAD_FRAMES}")
        if sum(map(len, payload)) > MAX_PAYLOAD_BYTES:
            raise DecodeError("payload-size", f"more than {MAX_PAYLOAD_BYTES} bytes")
    try:
        envelope = _decode(head)
    except msgspec.ValidationError as error:
        raise DecodeError("bad-message", str(error)[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("not-msgpack", str(error)[:200]) from None
    if payload and not isinstance(envelope.body, _MAY_CARRY_PAYLOAD):
        raise DecodeError("unexpected-payload", type(envelope.body).__name__)
    return envelope, payload
