"""Requests to pieces, and pieces to replies."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.inbox import Inbox
from iovirt_dist.gateway.nbd.transmission import MAX_HELD_BYTES, MAX_REQUESTS, Piece, Transmission
from tests.unit.gateway.nbd.client import EXPORT, FLAGS, MIB, put, request, simple

Command, Flag, Error = nbd.Command, nbd.CommandFlag, nbd.NbdError
PIECE = 65536
READ_ONLY = EXPORT._replace(flags=nbd.TransmissionFlag.HAS_FLAGS | nbd.TransmissionFlag.READ_ONLY)


class Client:
    """A connection in its second phase."""

    def __init__(self, *said: bytes, structured: bool = False, export: nbd.Export = EXPORT) -> None:
        self.inbox = Inbox(4 * MIB)
        self.core = Transmission(export, self.inbox, structured=structured, piece_bytes=PIECE)
        self.pieces: list[Piece] = []
        put(self.inbox, b"".join(said))

    def take(self, most: int = 1000) -> list[tuple[int, int, int, bytes]]:
        """Take pieces: command, offset on the disk, length, data."""
        before = len(self.pieces)
        self.core.take(self.pieces, most)
        return [
            (piece[0].command, piece[0].offset + piece[1], piece[2], bytes(piece[3])) for piece in self.pieces[before:]
        ]

    def finish(self, *, done: bool = True, fill: bytes = b"d") -> list[bool]:
        """Let the disk do all pieces; returns which are to be flushed."""
        pieces = self.pieces.copy()
        self.pieces.clear()
        found = []
        for owner, at, length, _ in pieces:
            data = fill * length if owner.command == Command.READ else b""
            found.append(self.core.finished(owner, at, done, memoryview(data)))
        return found

    @property
    def answer(self) -> bytes:
        """All that is to be sent."""
        return b"".join(self.core.out)


def test_read_is_one_piece_and_one_simple_reply() -> None:
    """The data follows the head."""
    client = Client(request(Command.READ, 4096, 512))
    assert client.take() == [(Command.READ, 4096, 512, b"")]
    client.finish()
    assert client.answer == simple() + b"d" * 512


def test_read_with_structured_replies_is_one_chunk() -> None:
    """It has flag, offset and data."""
    client = Client(request(Command.READ, 4096, 512, flags=Flag.DF), structured=True)
    client.take()
    client.finish()
    head = nbd.CHUNK_DATA.pack(nbd.CHUNK_MAGIC, nbd.CHUNK_DONE, nbd.Chunk.OFFSET_DATA, 7, 520, 4096)
    assert client.answer == head + b"d" * 512


def test_failed_read_with_structured_replies_is_an_error_chunk() -> None:
    """A simple reply is forbidden there."""
    client = Client(request(Command.READ, 4096, 512), structured=True)
    client.take()
    client.finish(done=False)
    assert client.answer == nbd.CHUNK_ERROR.pack(nbd.CHUNK_MAGIC, nbd.CHUNK_DONE, nbd.Chunk.ERROR, 7, 6, Error.EIO, 0)
    assert client.core.failed == 1


def test_long_read_is_put_together_whatever_the_order_of_its_pieces() -> None:
    """Each piece goes to its place."""
    client = Client(request(Command.READ, 0, 2 * PIECE + 512))
    client.take()
    (owner, first, size, _), (_, second, _, _), (_, third, rest, _) = client.pieces
    client.core.finished(owner, third, True, memoryview(b"c" * rest))
    client.core.finished(owner, first, True, memoryview(b"a" * size))
    client.core.finished(owner, second, True, memoryview(b"b" * size))
    assert client.answer == simple() + b"a" * PIECE + b"b" * PIECE + b"c" * 512


def test_long_read_of_which_a_piece_fails_has_an_error_and_no_data() -> None:
    """The others do not make up for it."""
    client = Client(request(Command.READ, 0, 2 * PIECE))
    client.take()
    (owner, first, size, _), (_, second, _, _) = client.pieces
    client.core.finished(owner, first, False, memoryview(bytes(size)))
    client.core.finished(owner, second, True, memoryview(bytes(size)))
    assert client.answer == simple(Error.EIO)


def test_write_is_taken_piece_by_piece_as_its_data_comes() -> None:
    """A piece waits for all of its data."""
    data = b"x" * PIECE + b"y" * 512
    said = request(Command.WRITE, 8192, data=data)
    client = Client(said[: PIECE + 100])
    first = client.take()
    put(client.inbox, said[PIECE + 100 :])
    assert first == [(Command.WRITE, 8192, PIECE, b"x" * PIECE)]
    assert client.take() == [(Command.WRITE, 8192 + PIECE, 512, b"y" * 512)]
    client.finish()
    assert client.answer == simple()


def test_pieces_are_no_more_than_there_is_room_for() -> None:
    """The request goes on where it stopped."""
    client = Client(request(Command.READ, 0, 3 * PIECE), request(Command.READ, 0, 512))
    assert [len(client.take(2)), len(client.take(1)), len(client.take(5))] == [2, 1, 1]


@pytest.mark.parametrize("command", [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES])
def test_command_with_fua_is_flushed_before_it_is_answered(command: int) -> None:
    """The answer comes with the flush."""
    client = Client(request(command, 0, 512, flags=Flag.FUA, data=b"x" * 512 if command == Command.WRITE else b""))
    client.take()
    (owner, *_) = client.pieces[0]
    assert client.finish() == [True]
    before = client.answer
    assert client.core.finished(owner, 0, True, memoryview(b"")) is False
    assert (before, client.answer) == (b"", simple())


def test_command_with_fua_that_failed_is_answered_at_once() -> None:
    """There is nothing to flush."""
    client = Client(request(Command.WRITE, 0, flags=Flag.FUA, data=b"x" * 512))
    client.take()
    assert client.finish(done=False) == [False]
    assert client.answer == simple(Error.EIO)


def test_zeroes_are_divided_as_the_disk_wants_and_trims_are_not() -> None:
    """Neither has data."""
    client = Client(request(Command.WRITE_ZEROES, 0, 9 * MIB, flags=Flag.NO_HOLE), request(Command.TRIM, 0, 64 * MIB))
    assert [(command, length) for command, _, length, _ in client.take()] == [
        (Command.WRITE_ZEROES, 4 * MIB),
        (Command.WRITE_ZEROES, 4 * MIB),
        (Command.WRITE_ZEROES, MIB),
        (Command.TRIM, 64 * MIB),
    ]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (request(5), Error.EINVAL),
        (request(Command.READ, 0, 512, flags=Flag.DF), Error.EINVAL),
        (request(Command.READ, 0, 512, flags=0x8000), Error.EINVAL),
        (request(Command.READ, 1, 512), Error.EINVAL),
        (request(Command.READ, 0, 511), Error.EINVAL),
        (request(Command.READ, 0, 33 * MIB), Error.EINVAL),
        (request(Command.READ, 64 * MIB, 512), Error.EINVAL),
        (request(Command.READ, (1 << 64) - 512, 512), Error.EINVAL),
        (request(Command.FLUSH, 512), Error.EINVAL),
        (request(Command.TRIM, 64 * MIB, 512), Error.EINVAL),
        (request(Command.WRITE_ZEROES, 64 * MIB, 512), Error.ENOSPC),
        (request(Command.WRITE, 64 * MIB, data=bytes(512)), Error.ENOSPC),
        (request(Command.WRITE, 1, data=bytes(512)), Error.EINVAL),
        (request(Command.READ, 0, 0), Error.OK),
        (request(Command.WRITE, 0, 0), Error.OK),
    ],
)
def test_request_that_cannot_be_done_is_answered_without_the_disk(said: bytes, error: int) -> None:
    """What follows it is taken: the data of a WRITE is dropped."""
    client = Client(said, request(Command.FLUSH, cookie=8))
    assert client.take() == [(Command.FLUSH, 0, 0, b"")]
    assert client.answer == simple(error)
    assert client.core.refused == (error != Error.OK)


def test_empty_read_with_structured_replies_has_an_empty_chunk() -> None:
    """A chunk of data has at least a byte."""
    client = Client(request(Command.READ, 0, 0), structured=True)
    client.take()
    assert client.answer == nbd.CHUNK.pack(nbd.CHUNK_MAGIC, nbd.CHUNK_DONE, nbd.Chunk.NONE, 7, 0)


@pytest.mark.parametrize(
    "said",
    [
        request(Command.WRITE, data=bytes(512)),
        request(Command.TRIM, 0, 512),
        request(Command.WRITE_ZEROES, 0, 512),
    ],
)
def test_read_only_disk_permits_no_writing(said: bytes) -> None:
    """And goes on reading."""
    client = Client(said, request(Command.READ, 0, 512), export=READ_ONLY)
    assert [command for command, *_ in client.take()] == [Command.READ]
    assert client.answer == simple(Error.EPERM)


@pytest.mark.parametrize("command", [Command.TRIM, Command.WRITE_ZEROES])
def test_command_that_was_not_offered_is_refused(command: nbd.Command) -> None:
    """The disk cannot do it."""
    export = EXPORT._replace(flags=FLAGS & ~nbd.TransmissionFlag[f"SEND_{command.name}"])
    client = Client(request(command, 0, 512), export=export)
    assert (client.take(), client.answer) == ([], simple(Error.EINVAL))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x25\x60\x95\x14" + bytes(24), "request-magic"),
        (request(Command.WRITE, 0, (32 * MIB) + 512), "write-length"),
    ],
)
def test_client_that_breaks_the_protocol_is_refused_with_a_reason(said: bytes, reason: str) -> None:
    """What it had asked for before stays in the list."""
    client = Client(request(Command.READ, 0, 512), said)
    with pytest.raises(PeerError) as caught:
        client.take()
    assert (caught.value.reason, len(client.pieces)) == (reason, 1)


def test_client_that_leaves_is_over_with_its_last_answer() -> None:
    """Nothing behind DISC is looked at."""
    client = Client(request(Command.READ, 0, 512), request(Command.DISC), request(Command.READ, 0, 512))
    taken = client.take()
    before = client.core.over
    client.finish()
    assert (len(taken), before, client.core.over) == (1, False, True)


def test_client_that_sends_no_more_is_over_with_the_last_answer_of_what_it_sent() -> None:
    """However much of that the disk has room for at once."""
    client = Client(request(Command.READ, 0, 512, cookie=1), request(Command.READ, 512, 512, cookie=2))
    client.core.shut()
    client.take(1)
    client.finish()
    before = client.core.over
    client.take()
    client.take()
    waits = client.core.over
    client.finish()
    assert (before, waits, client.core.over) == (False, False, True)
    assert client.answer == simple(cookie=1) + b"d" * 512 + simple(cookie=2) + b"d" * 512


@pytest.mark.parametrize("rest", [b"", request(Command.READ)[:-1], request(Command.WRITE, 1, data=b"x" * 9)[:-3]])
def test_client_that_sends_no_more_and_waits_for_nothing_is_over(rest: bytes) -> None:
    """Also within a header, or in the data of a WRITE that is refused."""
    client = Client(rest)
    before = client.take(), client.core.over
    client.core.shut()
    assert (before, client.core.over) == (([], False), True)


def test_client_that_sends_no_more_in_a_write_breaks_the_protocol() -> None:
    """What is missing never comes."""
    client = Client(request(Command.WRITE, 0, data=b"x" * 512)[:-1])
    client.take()
    client.core.shut()
    with pytest.raises(PeerError) as caught:
        client.take()
    assert caught.value.reason == "truncated"


def test_unanswered_requests_have_a_bound() -> None:
    """The others wait in the inbox."""
    client = Client(request(Command.READ, 0, 512) * (MAX_REQUESTS + 1))
    taken = len(client.take())
    client.finish()
    assert (taken, len(client.take())) == (MAX_REQUESTS, 1)


def test_data_of_unanswered_reads_has_a_bound() -> None:
    """A read waits until the others are answered."""
    client = Client(request(Command.READ, 0, MAX_HELD_BYTES), request(Command.READ, 0, 512))
    taken = len(client.take())
    client.finish()
    assert (taken, len(client.take())) == (MAX_HELD_BYTES // PIECE, 1)


def test_client_that_does_not_read_is_not_served() -> None:
    """Until it does."""
    client = Client(request(Command.READ, 0, 512))
    client.core.blocked = True
    before = client.take()
    client.core.blocked = False
    assert (before, len(client.take())) == ([], 1)
