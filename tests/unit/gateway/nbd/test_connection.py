"""A client from its greeting to its end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.connection import Connection
from iovirt_dist.gateway.nbd.transmission import Piece
from iovirt_dist.wire.codec import Buffer
from tests.unit.gateway.nbd.client import CHOOSE, EXPORT, HELLO, option, put, request, simple

GREETING_BYTES = 18


class Client:
    """A connection, and what came out of it."""

    def __init__(self) -> None:
        self.sent = b""
        self.reasons: list[str] = []
        self.connection = Connection(EXPORT, 65536, self._send, self.reasons.append)

    def _send(self, buffers: Sequence[Buffer]) -> None:
        self.sent += b"".join(buffers)

    def say(self, data: bytes) -> None:
        """Send."""
        self.connection.inbox.room()[: len(data)] = data
        self.connection.received(len(data))

    def take(self) -> list[Piece]:
        """Let the server look for requests."""
        pieces: list[Piece] = []
        self.connection.take(pieces, 100)
        return pieces


def test_connection_greets_before_anything_is_said() -> None:
    """The server speaks first."""
    assert Client().sent[:8] == b"NBDMAGIC"


def test_requests_behind_the_handshake_are_not_lost() -> None:
    """A client may send them together with GO."""
    client = Client()
    client.say(CHOOSE + request(nbd.Command.READ, 0, 512))
    assert [length for _, _, length, _ in client.take()] == [512]


def test_client_that_breaks_the_handshake_is_closed_with_the_reason() -> None:
    """What it still says is not looked at."""
    client = Client()
    client.say(nbd.CLIENT_FLAGS.pack(99))
    client.say(CHOOSE)
    assert (client.reasons, client.connection.closed, len(client.sent)) == (["client-flags"], "client-flags", 18)


def test_client_that_aborts_is_answered_and_closed() -> None:
    """It has left in good order."""
    client = Client()
    client.say(HELLO + option(nbd.Option.ABORT))
    assert (client.reasons, len(client.sent)) == (["left"], GREETING_BYTES + nbd.OPTION_REPLY.size)


def test_client_that_breaks_the_protocol_later_gets_the_answers_it_has() -> None:
    """Then it is closed."""
    client = Client()
    client.say(CHOOSE)
    client.sent = b""
    client.say(request(99) + b"nonsense" * 4)
    assert client.take() == []
    assert (client.sent, client.reasons) == (simple(nbd.NbdError.EINVAL), ["request-magic"])


def test_client_that_leaves_is_closed_behind_its_last_answer() -> None:
    """DISC has no answer itself."""
    client = Client()
    client.say(CHOOSE + request(nbd.Command.FLUSH) + request(nbd.Command.DISC))
    ((owner, *_),) = client.take()
    client.connection.flush()
    before = client.reasons.copy()
    client.sent = b""
    owner.owner.finished(owner, 0, True, memoryview(b""))
    client.connection.flush()
    assert (before, client.sent, client.reasons) == ([], simple(), ["left"])


def test_client_that_sends_no_more_is_closed_behind_its_last_answer() -> None:
    """It has not taken its leave, so it counts as lost."""
    client = Client()
    client.say(CHOOSE + request(nbd.Command.FLUSH))
    client.connection.shut()
    ((owner, *_),) = client.take()
    client.connection.flush()
    before = client.reasons.copy()
    owner.owner.finished(owner, 0, True, memoryview(b""))
    client.connection.flush()
    assert (before, client.reasons) == ([], ["lost"])


@pytest.mark.parametrize("said", [b"", HELLO, CHOOSE])
def test_client_that_sends_no_more_and_waits_for_nothing_is_lost(said: bytes) -> None:
    """At once, with or without a disk."""
    client = Client()
    client.say(said)
    client.connection.shut()
    assert client.reasons == ["lost"]


def test_connection_is_closed_once() -> None:
    """The first reason counts."""
    client = Client()
    client.connection.close("lost")
    client.connection.close("left")
    assert client.reasons == ["lost"]
    put(client.connection.inbox, b"")
