"""What a status file tells of one session: both directions by number, its own by bytes, and what went wrong."""

from __future__ import annotations

from iovirt_dist.wire.stream import Stream


def session_status(stream: Stream | None) -> dict[str, int]:
    """Return the numbered messages of a session and the bytes of those that left, each counted once; 0 without one.

    The bytes that came are what the peer counts as having left. ``unacknowledged`` wait for the peer, ``repeated`` were
    sent again; ``duplicates`` and ``gaps`` came and were dropped, as received before or as ahead of a missing one.
    """
    return {
        "messages_in": stream.last_in if stream else 0,
        "messages_out": stream.last_out if stream else 0,
        "message_bytes_out": stream.bytes_out if stream else 0,
        "unacknowledged": stream.unacknowledged() if stream else 0,
        "repeated": stream.repeated if stream else 0,
        "duplicates": stream.duplicates if stream else 0,
        "gaps": stream.gaps if stream else 0,
    }
