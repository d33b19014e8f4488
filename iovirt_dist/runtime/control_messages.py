"""What supervisors of different hosts, and commands, say to each other: requests and replies of one frame each.

As in `wire.codec`, the declared messages drive the decoder: types are exact, lengths bounded, unknown tags and fields
are refused before anything is built, and whatever is wrong is one `DecodeError`. Status files travel as the JSON that
they are: whoever shows them reads them as he reads his own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from iovirt_dist.errors import DecodeError
from iovirt_dist.topology.scaling import Digest, Name, Scaling
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.fields import U63

MAX_REQUEST_BYTES: Final = 1 << 20
MAX_REPLY_BYTES: Final = 8 << 20
MAX_STATUS_BYTES: Final = 1 << 20
"""A longer status file does not travel; that the process lives is told all the same."""
MAX_PROCESSES: Final = 4096

Line = Annotated[str, Meta(max_length=1024)]
Content = Annotated[bytes, Meta(max_length=MAX_STATUS_BYTES)]


class Request(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all requests.

    Attributes:
        number: The asker's, which the reply bears.
    """

    number: U63


class ReadStatus(Request, frozen=True, tag=1):
    """What do the host's processes say about themselves?"""


class ReadScaling(Request, frozen=True, tag=2):
    """How was the host's part scaled?"""


class ChangeScaling(Request, frozen=True, tag=3):
    """Have as many guests as this says.

    Attributes:
        expected_revision: Of what the host has now.
        scaling: What it is to have; on all hosts the same.
        try_only: Only say whether it could be done.
    """

    expected_revision: U63
    scaling: Scaling
    try_only: bool


class Reply(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all replies; `number` is the request's."""

    number: U63


class ProcessReport(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One status file.

    Attributes:
        name: The process; ``_up`` is the supervisor.
        alive: Whether the process that wrote it exists now.
        content: The file, JSON; empty if it is too long.
    """

    name: Name
    alive: bool
    content: Content


class StatusRead(Reply, frozen=True, tag=17):
    """The host's status files.

    Attributes:
        now_ns: The host's wall clock (Unix time), for ages: its clock may differ.
        processes: One each.
    """

    now_ns: U63
    processes: Annotated[list[ProcessReport], Meta(max_length=MAX_PROCESSES)]


class ScalingRead(Reply, frozen=True, tag=18):
    """How the host's part was scaled.

    Attributes:
        digest: Of the topology file when the host came up.
        scaling: What the host was told last.
    """

    digest: Digest
    scaling: Scaling


class Agreed(Reply, frozen=True, tag=19):
    """It is done, or could be."""


class Refused(Reply, frozen=True, tag=20):
    """It is not, and why."""

    what: Line


AnyRequest: TypeAlias = ReadStatus | ReadScaling | ChangeScaling
AnyReply: TypeAlias = StatusRead | ScalingRead | Agreed | Refused

_encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode(message: Request | Reply) -> bytes:
    """Return the frame of a message."""
    return _encode(message)


def decode_request(frames: Sequence[Buffer]) -> AnyRequest:
    """Check and decode a request.

    Raises:
        DecodeError: It is none.
    """
    frame = _only(frames, MAX_REQUEST_BYTES)
    try:
        return _requests.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-request", str(error)[:200]) from None


def decode_reply(frames: Sequence[Buffer]) -> AnyReply:
    """Check and decode a reply.

    Raises:
        DecodeError: It is none.
    """
    frame = _only(frames, MAX_REPLY_BYTES)
    try:
        return _replies.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-reply", str(error)[:200]) from None


def _only(frames: Sequence[Buffer], limit_bytes: int) -> Buffer:
    """The one frame of a message."""
    if len(frames) != 1:
        raise DecodeError("frames", f"{len(frames)} frames, expected one")
    if len(frames[0]) > limit_bytes:
        raise DecodeError("size", f"{len(frames[0])} bytes, at most {limit_bytes}")
    return frames[0]
