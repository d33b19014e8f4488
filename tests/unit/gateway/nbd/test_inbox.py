"""The buffer of a connection."""

from __future__ import annotations

from iovirt_dist.gateway.nbd.inbox import Inbox
from tests.unit.gateway.nbd.client import put

SIZE = 128 << 10


def test_inbox_emptied_begins_at_its_front_again() -> None:
    """All of the room is there once everything is taken."""
    inbox = Inbox(SIZE)
    put(inbox, bytes(1000))
    inbox.start += 1000
    assert len(inbox.room()) == SIZE


def test_inbox_with_little_room_moves_what_is_there() -> None:
    """A message that lies across the end comes to lie in one piece."""
    inbox = Inbox(SIZE)
    put(inbox, bytes(SIZE - 3) + b"abc")
    inbox.start += SIZE - 3
    room = inbox.room()
    assert (inbox.start, inbox.end, bytes(inbox.view[:3])) == (0, 3, b"abc")
    assert len(room) == SIZE - 3


def test_inbox_filled_is_full_until_something_is_taken() -> None:
    """Nothing more can be received."""
    inbox = Inbox(SIZE)
    put(inbox, bytes(SIZE))
    full = inbox.full
    inbox.start += 1
    assert (full, inbox.full, len(inbox.room())) == (True, False, 1)
