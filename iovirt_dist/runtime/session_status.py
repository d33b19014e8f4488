"""What a status file tells of one session: both directions by number, its own by bytes."""

from __future__ import annotations

from iovirt_dist.wire.stream import Stream


def session_status(stream: Stream | None) -> dict[str, int]:
    """Return the numbered messages of a session and the bytes of those that left, each counted once; 0 without one.

    The bytes that came are what the peer counts as having left.
    """
    return {
        "messages_in": stream.last_in if stream else 0,
        "messages_out": stream.last_out if stream else 0,
        "message_bytes_out": stream.bytes_out if stream else 0,
    }
