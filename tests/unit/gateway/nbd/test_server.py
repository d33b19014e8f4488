"""The gateway's clients at a real driver and the real virtual disk, without sockets and wires."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.connection import Connection
from iovirt_dist.gateway.nbd.server import Server
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Status
from tests.unit.gateway.nbd.client import CHOOSE, MIB, request, simple
from tests.unit.gateway.nbd.gateway import CONTENT, Gateway

Command, Flag = nbd.Command, nbd.CommandFlag


class Client:
    """A client of a server."""

    def __init__(self, server: Server) -> None:
        self.sent = b""
        self.reason = ""
        self.connection: Connection = server.connect(self._send, self._close)
        self.say(CHOOSE)
        self.sent = b""

    def _send(self, buffers: Sequence[Buffer]) -> None:
        self.sent += b"".join(buffers)

    def _close(self, reason: str) -> None:
        self.reason = reason

    def say(self, data: bytes) -> None:
        """Send."""
        self.connection.inbox.room()[: len(data)] = data
        self.connection.received(len(data))


def test_server_reads_what_is_on_the_disk() -> None:
    """A request of several pieces, more than the disk has places."""
    gateway = Gateway()
    client = Client(gateway.server)
    client.say(request(Command.READ, 512, MIB - 1024))
    gateway.serve()
    assert client.sent == simple() + CONTENT[512:-512]


def test_server_writes_and_flushes_and_clears() -> None:
    """Each is answered; TRIM may leave what it likes, this disk notes it."""
    gateway = Gateway()
    client = Client(gateway.server)
    data = bytes(range(256)) * 512
    client.say(request(Command.WRITE, 1024, cookie=1, flags=Flag.FUA, data=data))
    gateway.serve()
    client.say(request(Command.FLUSH, cookie=2) + request(Command.WRITE_ZEROES, 2048, 4096, cookie=3))
    client.say(request(Command.TRIM, 8192, 4096, cookie=4))
    gateway.serve()
    assert client.sent == b"".join(simple(cookie=cookie) for cookie in (1, 2, 3, 4))
    assert gateway.disk[1024 : 1024 + len(data)] == data[:1024] + bytes(4096) + data[5120:]
    assert gateway.board.disk is not None
    assert (gateway.board.disk.flushes, gateway.board.disk.discards) == (2, [(8192, 4096)])


def test_requests_of_all_clients_share_a_doorbell() -> None:
    """As many as there are places; each client has its share."""
    gateway = Gateway(depth=8)
    clients = [Client(gateway.server) for _ in range(3)]
    for client in clients:
        client.say(request(Command.READ, 0, 512) * 20)
    before = gateway.board.doorbells
    gateway.server.turn()
    assert gateway.board.doorbells == before + 1
    gateway.board.serve()
    gateway.server.turn()
    assert sorted(len(client.sent) // 528 for client in clients) == [2, 3, 3]


def test_requests_gather_while_two_doorbells_are_not_done() -> None:
    """Then they leave together."""
    gateway = Gateway(depth=8)
    client = Client(gateway.server)
    before = gateway.board.doorbells
    for _ in range(5):
        client.say(request(Command.READ, 0, 512))
        gateway.server.turn()
    early = gateway.board.doorbells
    gateway.serve()
    assert (early - before, gateway.board.doorbells - before) == (2, 3)
    assert len(client.sent) == 5 * 528


def test_failing_disk_is_an_error_of_the_request() -> None:
    """The next one may be well."""
    gateway = Gateway()
    client = Client(gateway.server)
    assert gateway.board.disk is not None
    gateway.board.disk.fails = Status.MEDIUM_ERROR
    client.say(request(Command.READ, 0, 512, cookie=1))
    gateway.serve()
    gateway.board.disk.fails = None
    client.say(request(Command.READ, 0, 512, cookie=2))
    gateway.serve()
    assert client.sent == simple(nbd.NbdError.EIO, 1) + simple(cookie=2) + CONTENT[:512]


@pytest.mark.parametrize("read_only", [True, False])
def test_export_says_what_the_disk_can_do(read_only: bool) -> None:
    """A read-only disk neither trims nor clears."""
    export = Gateway(read_only=read_only).server.export
    assert export is not None
    flags = nbd.TransmissionFlag
    common = flags.HAS_FLAGS | flags.SEND_FLUSH | flags.SEND_FUA | flags.CAN_MULTI_CONN
    more = flags.READ_ONLY if read_only else flags.SEND_TRIM | flags.SEND_WRITE_ZEROES
    assert export == nbd.Export("disk", MIB, common | more)


def test_requests_in_flight_go_to_the_disk_of_the_next_life() -> None:
    """Reads and writes, with their data, and what waits for its flush."""
    gateway = Gateway()
    client = Client(gateway.server)
    client.say(request(Command.READ, 0, 512, cookie=1) + request(Command.WRITE, 4096, cookie=2, data=b"x" * 1024))
    gateway.server.turn()
    client.say(request(Command.WRITE, 512, cookie=3, flags=Flag.FUA, data=b"y" * 512))
    gateway.server.turn()
    gateway.server.detach()
    gateway.server.turn()
    assert client.sent == b""
    gateway.boot(CONTENT)
    gateway.serve()
    assert client.sent == simple(cookie=1) + CONTENT[:512] + simple(cookie=2) + simple(cookie=3)
    assert (gateway.disk[4096:5120], gateway.disk[512:1024]) == (b"x" * 1024, b"y" * 512)
    assert gateway.server.resubmitted == 3


def test_requests_of_a_client_that_is_gone_are_not_done_again() -> None:
    """Nobody waits for them."""
    gateway = Gateway()
    client = Client(gateway.server)
    client.say(request(Command.WRITE, 0, data=b"x" * 512))
    gateway.server.turn()
    client.connection.close("lost")
    gateway.server.detach()
    gateway.boot(CONTENT)
    gateway.serve()
    assert (gateway.disk, gateway.server.resubmitted) == (CONTENT, 0)


def test_client_that_goes_with_requests_in_flight_disturbs_nobody() -> None:
    """Their outcomes are for nobody."""
    gateway = Gateway()
    gone, other = Client(gateway.server), Client(gateway.server)
    gone.say(request(Command.READ, 0, 512))
    other.say(request(Command.READ, 0, 512))
    gateway.server.turn()
    gone.connection.close("lost")
    gateway.serve()
    assert (gone.sent, other.sent) == (b"", simple() + CONTENT[:512])
    assert gateway.server.status() == {"clients": 1, "closed": {"lost": 1}, "requests": 2, "resubmitted": 0}


def test_other_disk_in_the_next_life_closes_all_clients() -> None:
    """They know a larger size, and what they have written is not for it."""
    gateway = Gateway()
    client = Client(gateway.server)
    client.say(request(Command.WRITE, 0, data=b"x" * 512))
    gateway.server.turn()
    gateway.server.detach()
    gateway.boot(bytes(MIB // 2))
    gateway.serve()
    assert (client.reason, gateway.server.connections) == ("disk-changed", [])
    assert gateway.disk == bytes(MIB // 2)


def test_disk_that_has_grown_is_the_same_for_those_who_are_there() -> None:
    """Whoever comes is told its size, whether it grew in this life or before the next."""
    gateway = Gateway()
    client = Client(gateway.server)
    client.say(request(Command.WRITE, 0, data=b"x" * 512))
    gateway.server.turn()
    gateway.server.detach()
    gateway.boot(bytes(2 * MIB))
    gateway.serve()
    gateway.server.resized(3 * MIB // 512)
    assert (client.sent, client.reason) == (simple(), "")
    assert gateway.disk[:512] == b"x" * 512
    assert gateway.server.export is not None
    assert gateway.server.export.size_bytes == 3 * MIB
