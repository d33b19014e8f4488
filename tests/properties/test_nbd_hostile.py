"""Hostile NBD clients: sound conversations, damaged where it hurts, in pieces of any size.

Whatever a client says, no exception passes the connection; the disk is asked for nothing that it does not have; each
request is answered at most once and in a form that can be parsed; and the connection goes on, or is closed with a known
reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.connection import Connection
from iovirt_dist.gateway.nbd.transmission import MAX_REQUESTS, Piece
from iovirt_dist.wire.codec import Buffer
from tests.properties.amount import PER_EXAMPLE, examples
from tests.unit.gateway.nbd.client import HELLO, MIB, info, option

EXAMPLES = examples(1000)

SIZE = 4 * MIB
PIECE = 4096
EXPORT = nbd.Export("disk", SIZE, nbd.TransmissionFlag(0b1101101), "fuzzed")
REASONS = {
    *("", "left", "client-flags", "option-magic", "option-length", "export-unknown", "options"),
    *("request-magic", "write-length"),
}
NUMBERS = (0, 1, 7, 511, 512, 513, 4096, SIZE - 512, SIZE - 1, SIZE, SIZE + 512, 0x7FFF_FFFF, 0xFFFF_FE00, 0xFFFF_FFFF)
OFFSETS = (*NUMBERS, 1 << 63, (1 << 64) - 512, (1 << 64) - 1)
COMMANDS = (*nbd.Command, 5, 7, 8, 255, 0xFFFF)
NAMES = (b"", b"disk", b"dis", b"disk\0", b"\xff" * 9, b"n" * 5000)


class Conversation:
    """One client and a disk that holds nothing.

    Attributes:
        sent: All that the client was told.
        done: Pieces that the disk has done.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.sent = bytearray()
        self.connection = Connection(EXPORT, PIECE, self._send, lambda reason: None)
        self.pieces: list[Piece] = []
        self.done = 0

    def _send(self, buffers: Sequence[Buffer]) -> None:
        assert not self.connection_closed
        self.sent += b"".join(buffers)

    @property
    def connection_closed(self) -> str:
        """Why it is over; empty while it is not."""
        connection = getattr(self, "connection", None)
        return connection.closed if connection is not None else ""

    def say(self, data: bytes) -> None:
        """Send bytes in pieces; the disk works now and then."""
        at = 0
        while at < len(data) and not self.connection.closed:
            room = self.connection.inbox.room()
            count = min(self.chance.choice((1, 3, 28, 4096, 1 << 20)), len(data) - at, len(room))
            room[:count] = data[at : at + count]
            self.connection.received(count)
            at += count
            self.turn(not count or self.chance.random() < 0.3)

    def turn(self, work: bool) -> None:
        """Take requests, and let the disk do some or all."""
        self.connection.take(self.pieces, self.chance.randrange(1, 9))
        while work and self.pieces:
            request, at, length, data = self.pieces.pop(self.chance.randrange(len(self.pieces)))
            self.done += 1
            self._check(request.command, request.offset + at, length, data)
            read = bytes(length) if request.command == nbd.Command.READ else b""
            if request.owner.finished(request, at, self.chance.random() < 0.95, memoryview(read)):
                self.pieces.append((request, 0, 0, b""))
        self.connection.flush()
        transmission = self.connection.transmission
        assert transmission is None or transmission.outstanding <= MAX_REQUESTS

    def _check(self, command: int, offset: int, length: int, data: Buffer) -> None:
        """What the disk is asked for is what a sound driver may ask for."""
        assert command in (0, 1, 3, 4, 6)
        assert 0 <= offset <= offset + length <= SIZE
        assert not (offset | length) % 512
        assert len(data) == (length if command == nbd.Command.WRITE else 0)
        assert command not in (0, 1) or 0 < length <= PIECE

    def end(self) -> str:
        """Let the disk finish; returns the reason of the end, if there was one."""
        before = -1
        while self.done != before or self.pieces:
            before = self.done
            self.turn(True)
        return self.connection.closed


def _damaged(chance: Random, data: bytes) -> bytes:
    """Change a byte, cut, or repeat; mostly nothing."""
    kind = chance.randrange(12)
    at = chance.randrange(len(data) + 1)
    if kind == 0 and data:
        at %= len(data)
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:]
    return data


def _option(chance: Random) -> bytes:
    kind = chance.choice((*nbd.Option, 4, 9, 99, 0xFFFF_FFFF))
    name = chance.choice(NAMES)
    data = chance.choice((b"", name, info(name, *range(chance.randrange(6))), chance.randbytes(chance.randrange(64))))
    return option(kind, data)


def _request(chance: Random) -> bytes:
    command = chance.choice(COMMANDS)
    offset, length = chance.choice(OFFSETS), chance.choice(NUMBERS)
    if chance.random() < 0.7:
        offset, length = chance.randrange(SIZE // 512) * 512, chance.randrange(1, 40) * 512
    flags = chance.choice((0, 0, 0, 1, 2, 4, 16, 0xFFFF))
    head = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, chance.getrandbits(64), offset, length)
    return head + (bytes(length) if command == nbd.Command.WRITE and length < 1 << 20 else b"")


def _handshake(chance: Random) -> bytes:
    said = [chance.choice((HELLO, HELLO, HELLO, b"\0\0\0\1", b"\xff\0\0\3", b""))]
    said += [_damaged(chance, _option(chance)) for _ in range(chance.randrange(6))]
    return b"".join(said)


def _transmission(chance: Random) -> bytes:
    structured = option(nbd.Option.STRUCTURED_REPLY) if chance.random() < 0.5 else b""
    said = [HELLO + structured + option(nbd.Option.GO, info(b"disk"))]
    said += [_damaged(chance, _request(chance)) for _ in range(chance.randrange(12))]
    return b"".join(said)


def _noise(chance: Random) -> bytes:
    return chance.choice((b"", HELLO, HELLO + option(nbd.Option.GO, info(b"")))) + chance.randbytes(
        chance.randrange(300)
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**64 - 1))
@pytest.mark.parametrize("make", [_handshake, _transmission, _noise], ids=["handshake", "transmission", "noise"])
def test_client_that_says_anything_is_answered_or_closed_with_a_reason(
    make: Callable[[Random], bytes], seed: int
) -> None:
    """Thousands of conversations, none of which ends in an exception."""
    chance = Random(seed)
    reasons: Counter[str] = Counter()
    for _ in range(PER_EXAMPLE):
        conversation = Conversation(chance)
        conversation.say(make(chance))
        reasons[conversation.end()] += 1
        assert conversation.sent.startswith(b"NBDMAGIC")
    assert set(reasons) <= REASONS


def test_fuzzer_reaches_every_reason() -> None:
    """The damage is worth something: each check fires, and plenty of requests reach the disk."""
    chance = Random(3)
    reasons: Counter[str] = Counter()
    done = 0
    for at in range(6000):
        conversation = Conversation(chance)
        conversation.say((_handshake, _transmission)[at % 2](chance))
        reasons[conversation.end()] += 1
        done += conversation.done
    assert set(reasons) == REASONS - {"options"}
    assert done > 2000


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**64 - 1))
def test_each_request_of_an_undamaged_client_is_answered_once(seed: int) -> None:
    """By its cookie, whatever its fields; all replies can be parsed to the last byte."""
    chance = Random(seed)
    for _ in range(PER_EXAMPLE // 10):
        conversation = Conversation(chance)
        conversation.say(HELLO + option(nbd.Option.EXPORT_NAME))
        before = len(conversation.sent)
        asked: dict[int, int] = {}
        for cookie in range(chance.randrange(1, 60)):
            command = chance.choice((0, 0, 1, 3, 4, 6, 9))
            offset, count = chance.randrange(SIZE // 512 + 4) * 512, chance.randrange(30) * 512
            head = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, chance.choice((0, 0, 1)), command, cookie, offset, count)
            conversation.say(head + (bytes(count) if command == 1 else b""))
            asked[cookie] = count if command == 0 else 0
        assert conversation.end() == ""
        assert _parsed(bytes(conversation.sent[before:]), asked) == sorted(asked)


def _parsed(sent: bytes, asked: dict[int, int]) -> list[int]:
    """Cookies of simple replies; READs that did not fail have their data behind them."""
    cookies = []
    at = 0
    while at < len(sent):
        magic, error, cookie = nbd.SIMPLE_REPLY.unpack_from(sent, at)
        assert magic == nbd.SIMPLE_MAGIC
        at += nbd.SIMPLE_REPLY.size + (0 if error else asked[cookie])
        cookies.append(cookie)
    assert at == len(sent)
    return sorted(cookies)
