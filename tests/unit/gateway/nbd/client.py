"""What a client says, and what it is answered, for tests of the gateway's cores."""

from __future__ import annotations

from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.inbox import Inbox

MIB = 1 << 20
FLAGS = (
    nbd.TransmissionFlag.HAS_FLAGS
    | nbd.TransmissionFlag.SEND_FLUSH
    | nbd.TransmissionFlag.SEND_FUA
    | nbd.TransmissionFlag.SEND_TRIM
    | nbd.TransmissionFlag.SEND_WRITE_ZEROES
)
EXPORT = nbd.Export("disk", 64 * MIB, FLAGS, "a disk")


def put(inbox: Inbox, data: bytes) -> None:
    """Let an inbox receive bytes; they must have room."""
    room = inbox.room()
    room[: len(data)] = data
    inbox.received(len(data))


def option(kind: int, data: bytes = b"") -> bytes:
    """An option of the client."""
    return nbd.OPTION.pack(nbd.OPTION_MAGIC, kind, len(data)) + data


def info(name: bytes, *kinds: int) -> bytes:
    """Data of INFO and GO."""
    wanted = b"".join(nbd.COUNT.pack(kind) for kind in kinds)
    return nbd.LENGTH.pack(len(name)) + name + nbd.COUNT.pack(len(kinds)) + wanted


def request(
    command: int, offset: int = 0, length: int = 0, cookie: int = 7, flags: int = 0, data: bytes = b""
) -> bytes:
    """A request of the client, a WRITE with its data."""
    return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, cookie, offset, length or len(data)) + data


def simple(error: int = 0, cookie: int = 7) -> bytes:
    """A simple reply's head."""
    return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_MAGIC, error, cookie)


def replies(answer: bytes) -> list[tuple[int, int, bytes]]:
    """Replies to options: option, reply type, data."""
    found = []
    while answer:
        magic, kind, reply, length = nbd.OPTION_REPLY.unpack_from(answer)
        assert magic == nbd.REPLY_MAGIC
        end = nbd.OPTION_REPLY.size + length
        found.append((kind, reply, answer[nbd.OPTION_REPLY.size : end]))
        answer = answer[end:]
    return found


HELLO = nbd.CLIENT_FLAGS.pack(nbd.HandshakeFlag.FIXED_NEWSTYLE | nbd.HandshakeFlag.NO_ZEROES)
CHOOSE = HELLO + option(nbd.Option.GO, info(b"disk"))
"""The shortest way to the transmission phase."""
