"""The TFTP server, by RFC 1350 and 2347 to 2349."""

from __future__ import annotations

import errno

import pytest

from iovirt_dist.controllers.net.packets import Datagram
from iovirt_dist.controllers.net.tftp import (
    FIRST_PORT,
    MAX_STATION_TRANSFERS,
    MAX_TRANSFERS,
    SENDS,
    Client,
    CloseFile,
    FileOpened,
    FileRead,
    OpenFile,
    ReadFile,
    TftpServer,
)
from tests.unit.controllers.net.support import CLIENT, SECOND, A, B

CONTENT = bytes(range(256)) * 5
"""1280 bytes: two blocks of 512 and a last one of 256."""


class Bench:
    """A server, its client, and its files.

    Attributes:
        sent: Payloads that the client got, since the last look.
        asked: Accesses to files, all of them.
    """

    def __init__(self, content: bytes = CONTENT, error: int = 0, mtu: int = 1500) -> None:
        self.server = TftpServer(mtu, lambda client, datagram: self.sent.append((client, datagram)))
        self.sent: list[tuple[Client, Datagram]] = []
        self.asked: list[object] = []
        self.now_ns = 0
        self._content, self._error = content, error

    def say(self, payload: bytes, to: int = 69, source: int = 2000, mac: bytes = A) -> list[tuple[int, bytes]]:
        """The client sends; returns what it gets: from which port, and what."""
        client = Client(mac, CLIENT, source)
        self.server.receive(client, Datagram(source, to, payload))
        return self.settle()

    def settle(self) -> list[tuple[int, bytes]]:
        """Answer the server's accesses to files; returns what clients got."""
        while self.server.accesses:
            access = self.server.accesses.pop(0)
            self.asked.append(access)
            if isinstance(access, OpenFile):
                self.server.opened(FileOpened(access.file, len(self._content), self._error), self.now_ns)
            elif isinstance(access, ReadFile):
                data = self._content[access.offset : access.offset + access.length]
                self.server.read(FileRead(access.file, data), self.now_ns)
        sent, self.sent = self.sent, []
        return [(datagram.source_port, datagram.payload) for _, datagram in sent]

    def tick(self, now_ns: int) -> list[tuple[int, bytes]]:
        """Time passes."""
        self.now_ns = now_ns
        self.server.tick(now_ns)
        return self.settle()


def read(name: bytes = b"boot/file", *options: bytes, mode: bytes = b"octet") -> bytes:
    """A read request."""
    return b"\0\1" + b"".join(word + b"\0" for word in (name, mode, *options))


def ack(number: int) -> bytes:
    """An acknowledgement."""
    return b"\0\4" + number.to_bytes(2, "big")


def data(number: int, content: bytes) -> bytes:
    """A block."""
    return b"\0\3" + number.to_bytes(2, "big") + content


def test_tftp_file_goes_block_by_block_and_a_short_one_ends_it() -> None:
    """From a port of the transfer's own."""
    bench = Bench()

    first = bench.say(read())
    second = bench.say(ack(1), FIRST_PORT)
    third = bench.say(ack(2), FIRST_PORT)
    end = bench.say(ack(3), FIRST_PORT)

    assert first == [(FIRST_PORT, data(1, CONTENT[:512]))]
    assert second == [(FIRST_PORT, data(2, CONTENT[512:1024]))]
    assert third == [(FIRST_PORT, data(3, CONTENT[1024:]))]
    assert end == []
    assert bench.asked[0] == OpenFile(FIRST_PORT, "boot/file")
    assert bench.asked[-1] == CloseFile(FIRST_PORT)
    assert (bench.server.finished, bench.server.deadline_ns()) == (1, None)


def test_tftp_file_of_whole_blocks_ends_with_an_empty_one() -> None:
    """RFC 1350, section 6."""
    bench = Bench(bytes(512))
    bench.say(read())

    assert bench.say(ack(1), FIRST_PORT) == [(FIRST_PORT, data(2, b""))]


def test_tftp_options_are_answered_and_hold() -> None:
    """Names as written in lower case, the file's size, and a block that fits the network."""
    bench = Bench(bytes(4000), mtu=1500)

    options = bench.say(read(b"f", b"blksize", b"8000", b"TSIZE", b"0", b"timeout", b"3", b"other", b"1"))
    block = bench.say(ack(0), FIRST_PORT)

    assert options == [(FIRST_PORT, b"\0\6blksize\x001468\0timeout\x003\0tsize\x004000\0")]
    assert block == [(FIRST_PORT, data(1, bytes(1468)))]
    assert bench.server.deadline_ns() == 3 * SECOND


@pytest.mark.parametrize("option", [(b"blksize", b"7"), (b"blksize", b"x"), (b"timeout", b"0"), (b"tsize", b"-1")])
def test_tftp_option_with_an_impossible_value_is_left_out(option: tuple[bytes, bytes]) -> None:
    """As if it had not been asked for."""
    assert Bench().say(read(b"f", *option)) == [(FIRST_PORT, data(1, CONTENT[:512]))]


def test_tftp_block_is_sent_again_until_it_is_acknowledged_or_too_often() -> None:
    """Then the transfer is given up."""
    bench = Bench()
    first = bench.say(read())

    again = [bench.tick(second * SECOND) for second in range(1, SENDS)]
    end = bench.tick(SENDS * SECOND)

    assert again == [first] * (SENDS - 1)
    assert end == [(FIRST_PORT, b"\0\5\0\0timed out\0")]
    assert (bench.server.failed, bench.server.deadline_ns()) == (1, None)


def test_tftp_repeated_acknowledgement_and_request_are_ignored() -> None:
    """RFC 1123, section 4.2.3.1: otherwise all blocks from here on would go twice."""
    bench = Bench()
    bench.say(read())

    request = bench.say(read())
    bench.say(ack(1), FIRST_PORT)
    repeated = bench.say(ack(1), FIRST_PORT)

    assert (request, repeated) == ([], [])


def test_tftp_client_that_begins_anew_gets_the_file_from_the_beginning() -> None:
    """It gave up half-way and has the same port again."""
    bench = Bench()
    bench.say(read())
    bench.say(ack(1), FIRST_PORT)

    assert bench.say(read()) == [(FIRST_PORT + 1, data(1, CONTENT[:512]))]


def test_tftp_block_numbers_begin_again_at_zero() -> None:
    """After 65535."""
    bench = Bench(bytes(8 * 65536))
    bench.say(read(b"f", b"blksize", b"8"))
    sent = [bench.say(ack(number & 0xFFFF), FIRST_PORT) for number in range(65536)]

    assert sent[-2] == [(FIRST_PORT, data(65535, bytes(8)))]
    assert sent[-1] == [(FIRST_PORT, data(0, bytes(8)))]


def test_tftp_datagram_of_another_client_does_not_disturb_a_transfer() -> None:
    """RFC 1350, section 4: it gets error 5."""
    bench = Bench()
    bench.say(read())

    stranger = bench.say(ack(1), FIRST_PORT, source=3000)

    assert stranger == [(FIRST_PORT, b"\0\5\0\5unknown transfer\0")]
    assert bench.say(ack(1), FIRST_PORT) == [(FIRST_PORT, data(2, CONTENT[512:1024]))]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\0\2name\0octet\0", 2),
        (b"\0\1name\0", 4),
        (b"\0\1\0octet\0", 4),
        (b"\0\7", 4),
        (b"", 4),
        (read(mode=b"netascii"), 4),
    ],
    ids=["write", "no-mode", "no-name", "opcode", "empty", "mode"],
)
def test_tftp_request_that_is_not_served_gets_an_error(payload: bytes, code: int) -> None:
    """From port 69; no file is touched."""
    bench = Bench()

    ((port, answer),) = bench.say(payload)

    assert (port, answer[:4]) == (69, b"\0\5\0" + bytes([code]))
    assert bench.asked == []


@pytest.mark.parametrize(("error", "code"), [(errno.ENOENT, 1), (errno.EACCES, 2), (errno.EIO, 0)])
def test_tftp_file_that_cannot_be_opened_is_an_error(error: int, code: int) -> None:
    """Its number says which."""
    bench = Bench(error=error)

    ((_, answer),) = bench.say(read())

    assert answer[:4] == b"\0\5\0" + bytes([code])
    assert not bench.server.takes(FIRST_PORT)


def test_tftp_errors_are_never_answered() -> None:
    """A client's error ends its transfer."""
    bench = Bench()
    bench.say(read())

    own = bench.say(b"\0\5\0\0", FIRST_PORT)
    foreign = bench.say(b"\0\5\0\0")

    assert (own, foreign) == ([], [])
    assert bench.asked[-1] == CloseFile(FIRST_PORT)


def test_tftp_transfers_are_bounded() -> None:
    """One more gets an error."""
    bench = Bench()
    for number in range(MAX_TRANSFERS):
        bench.say(read(), mac=bytes((2, 0, 0, 0, 1, number)))

    ((port, answer),) = bench.say(read())

    assert (port, answer[:4]) == (69, b"\0\5\0\0")


def test_tftp_transfers_of_one_station_are_bounded() -> None:
    """Another one has its own; one that has ended makes room."""
    bench = Bench()
    for number in range(MAX_STATION_TRANSFERS):
        bench.say(read(), source=1000 + number)

    ((port, answer),) = bench.say(read(), source=999)
    ((_, other),) = bench.say(read(), source=999, mac=B)
    bench.say(b"\0\5\0\0", FIRST_PORT, source=1000)
    ((_, later),) = bench.say(read(), source=999)

    assert (port, answer[:4]) == (69, b"\0\5\0\0")
    assert (other[:4], later[:4]) == (b"\0\3\0\1", b"\0\3\0\1")
