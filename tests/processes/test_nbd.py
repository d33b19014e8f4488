"""The NBD gateway as a process: requests, several clients, the loss of any process, and its own end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.runtime.nbd_listener import MAX_CLIENTS
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.processes.nbd_client import NbdClient

MIB = 1 << 20
SIZE = 8 * MIB
STOP_S = 20.0
PAUSE_S = 60.0
"""What a request may take while a process is replaced."""
CHOOSE = nbd.CLIENT_FLAGS.pack(3) + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.Option.EXPORT_NAME, 0)
"""The shortest way to the transmission phase."""


def tables(**gateway: Any) -> dict[str, Any]:
    """A topology with a gateway."""
    return {
        "topology": {"lease": "1s"},
        "hypervisor": {"hv0": {}},
        "controller": {"disk0": {"kind": "block", "image": "disk0.img", "size": SIZE, "durability": "write-back"}},
        "guest": {"nbd": {"kind": "nbd", "hypervisor": "hv0", "devices": {"disk": "disk0"}, **gateway}},
    }


def socket_of(topology: LiveTopology) -> Path:
    """Where the gateway listens."""
    return topology.run_dir.path / "nbd.nbd"


async def up(iovirt: TopologyFactory, **gateway: Any) -> LiveTopology:
    """Start a topology and wait until clients can use it."""
    topology = await iovirt.up(tables(**gateway))
    await ready(topology)
    return topology


async def ready(topology: LiveTopology) -> None:
    """Wait until clients can use the gateway."""
    await topology.guest().wait_status(lambda status: status.content["nbd"]["ready"])


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever the server thinks of it."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


Connect: TypeAlias = Callable[..., Awaitable[NbdClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects clients, and closes them behind the test."""
    clients: list[NbdClient] = []

    async def connect(path: Path, export: str = "") -> NbdClient:
        clients.append(await NbdClient.connect(path, export))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


async def test_gateway_does_what_clients_ask_for(iovirt: TopologyFactory, connect: Connect) -> None:
    """Every command; what is written is in the image after a flush."""
    topology = await up(iovirt)
    client = await connect(socket_of(topology), "nbd")
    data = random.Random(1).randbytes(3 * MIB)

    await client.write(512, data, fua=True)
    await client.request(nbd.Command.WRITE_ZEROES, 1024, 5 * MIB)
    await client.request(nbd.Command.TRIM, 7 * MIB, MIB)
    await client.write(4096, data[:1024])
    await client.flush()
    content = (topology.run_dir.path / "disk0.img").read_bytes()
    back = await client.read(0, 7 * MIB)
    await client.leave()

    expected = bytes(512) + data[:512] + bytes(3072) + data[:1024] + bytes(7 * MIB - 5120)
    assert client.size == SIZE
    assert back == expected
    assert content[: len(expected)] == expected


async def test_gateway_refuses_what_cannot_be(iovirt: TopologyFactory, connect: Connect) -> None:
    """The connection goes on after each error."""
    topology = await up(iovirt)
    client = await connect(socket_of(topology))

    with pytest.raises(OSError, match=f"{errno.EINVAL}"):
        await client.read(1, 512)
    with pytest.raises(OSError, match=f"{errno.ENOSPC}"):
        await client.write(SIZE, bytes(512))

    assert await client.read(0, 512) == bytes(512)


async def test_read_only_disk_is_said_to_be_and_refuses_writes(iovirt: TopologyFactory, connect: Connect) -> None:
    """EPERM, as NBD wants it."""
    topology = iovirt.prepare(tables(), controller={"disk0": {"read_only": True}})
    (topology.run_dir.path / "disk0.img").write_bytes(b"\1" * SIZE)
    await topology.start()
    await ready(topology)
    client = await connect(socket_of(topology))

    with pytest.raises(OSError, match=f"{errno.EPERM}"):
        await client.write(0, bytes(512))

    assert nbd.TransmissionFlag.READ_ONLY in client.flags
    assert await client.read(0, 512) == b"\1" * 512


async def test_two_clients_see_one_disk(iovirt: TopologyFactory, connect: Connect) -> None:
    """What one has written the other reads, as soon as that is answered."""
    topology = await up(iovirt)
    one, other = [await connect(socket_of(topology)) for _ in range(2)]

    async def write(client: NbdClient, first: int) -> None:
        await asyncio.gather(*(client.write(4096 * at, bytes([at % 251]) * 4096) for at in range(first, 400, 2)))

    await asyncio.gather(write(one, 0), write(other, 1))

    expected = b"".join(bytes([at % 251]) * 4096 for at in range(400))
    assert await one.read(0, len(expected)) == expected
    assert await other.read(0, len(expected)) == expected


async def test_gateway_listens_at_a_port(iovirt: TopologyFactory) -> None:
    """Of 127.0.0.1 only."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    topology = await up(iovirt, port=port)

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = await reader.readexactly(8)
    writer.close()
    await writer.wait_closed()
    status = await topology.guest().wait_running()

    assert greeting == b"NBDMAGIC"
    assert status.reason == f"nbd://127.0.0.1:{port}/nbd"


class Load:
    """Keeps writing blocks with their number and life, reads them back, and knows what each must hold.

    Attributes:
        done: Requests that were answered.
        wrong: Blocks that held something else.
    """

    BLOCKS = 256
    DEPTH = 16

    def __init__(self, client: NbdClient) -> None:
        self.done = 0
        self.wrong: list[int] = []
        self._client = client
        self._known: dict[int, bytes] = {}
        self._ending = False
        self._tasks = [asyncio.create_task(self._worker(at)) for at in range(self.DEPTH)]

    async def _worker(self, first: int) -> None:
        chance = random.Random(first)
        while not self._ending:
            block = first + self.DEPTH * chance.randrange(self.BLOCKS // self.DEPTH)
            if block in self._known and chance.random() < 0.5:
                if await self._client.read(block * 4096, 4096) != self._known[block]:
                    self.wrong.append(block)
            else:
                content = chance.randbytes(64) * 64
                await self._client.write(block * 4096, content, fua=chance.random() < 0.1)
                self._known[block] = content
            self.done += 1

    async def more(self, topology: LiveTopology, count: int) -> None:
        """Wait until so many more requests are answered."""
        until = self.done + count
        async with asyncio.timeout(PAUSE_S):
            while self.done < until:
                await asyncio.wait(self._tasks, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
                failed = [task for task in self._tasks if task.done()]
                assert not failed, f"{failed}\n{topology.explain()}"

    async def end(self) -> dict[int, bytes]:
        """Stop; returns what each block must hold."""
        self._ending = True
        await asyncio.gather(*self._tasks)
        return self._known


@pytest.mark.parametrize("victim", ["disk0", "hv0"])
async def test_loss_of_a_process_below_is_a_pause_for_clients(
    iovirt: TopologyFactory, connect: Connect, victim: str
) -> None:
    """Killed twice under load: no request fails, and every block holds what was written last."""
    topology = await up(iovirt)
    load = Load(await connect(socket_of(topology)))
    await load.more(topology, 200)

    for _ in range(2):
        topology.process(victim).kill()
        await topology.start(victim)
        await load.more(topology, 200)
    known = await load.end()
    client = await connect(socket_of(topology))
    back = {block: await client.read(block * 4096, 4096) for block in known}

    assert load.wrong == []
    assert back == known


async def test_loss_of_the_gateway_loses_nothing_that_was_answered(iovirt: TopologyFactory, connect: Connect) -> None:
    """Clients lose their connection; the next gateway takes over the socket that was left behind."""
    topology = await up(iovirt)
    client = await connect(socket_of(topology))
    answered: dict[int, bytes] = {}

    async def write(block: int) -> None:
        content = bytes([block % 251 + 1]) * 4096
        await client.write(block * 4096, content)
        answered[block] = content

    writing = [asyncio.create_task(write(block)) for block in range(1024)]
    while len(answered) < 100:
        await asyncio.wait(writing, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
    topology.guest().kill()
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    await topology.start("nbd")
    await ready(topology)
    again = await connect(socket_of(topology))
    back = {block: await again.read(block * 4096, 4096) for block in answered}

    assert {type(outcome) for outcome in outcomes} <= {type(None), ConnectionResetError}
    assert back == answered


async def test_hostile_client_is_closed_with_a_reason_and_others_go_on(
    iovirt: TopologyFactory, connect: Connect
) -> None:
    """Bad magic, a huge WRITE, bytes without sense, and half a request."""
    topology = await up(iovirt)
    honest = await connect(socket_of(topology))
    for said in (
        b"\xff" * 64,
        nbd.CLIENT_FLAGS.pack(3) + b"GET / HTTP/1.1\r\n\r\n",
        CHOOSE + b"\xff" * 64,
        CHOOSE + nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.WRITE, 1, 0, 0xFFFF_FE00),
    ):
        reader, writer = await asyncio.open_unix_connection(socket_of(topology))
        writer.write(said)
        await reader.read()
        await closed(writer)
    _, writer = await asyncio.open_unix_connection(socket_of(topology))
    writer.write(CHOOSE + nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.WRITE, 1, 0, 4096) + bytes(100))
    await writer.drain()
    await closed(writer)

    status = await topology.guest().wait_status(lambda status: sum(status.content["nbd"]["closed"].values()) == 5)

    assert status.content["nbd"]["closed"] == {
        "client-flags": 1,
        "option-magic": 1,
        "request-magic": 1,
        "write-length": 1,
        "lost": 1,
    }
    assert await honest.read(0, 512) == bytes(512)


async def test_client_too_many_is_closed_and_the_others_stay(iovirt: TopologyFactory, connect: Connect) -> None:
    """There is room again when one has left."""
    topology = await up(iovirt)
    clients = [await connect(socket_of(topology)) for _ in range(MAX_CLIENTS)]

    reader, writer = await asyncio.open_unix_connection(socket_of(topology))
    told = await reader.read()
    await closed(writer)
    await clients[0].leave()
    again = await connect(socket_of(topology))

    assert told == b""
    assert await again.read(0, 512) == bytes(512)
    assert await clients[-1].read(0, 512) == bytes(512)


async def test_client_that_leaves_and_sends_no_more_gets_all_its_answers(iovirt: TopologyFactory) -> None:
    """As libnbd does it: requests, DISC, and the sending half of the connection is shut."""
    topology = await up(iovirt)
    reader, writer = await asyncio.open_unix_connection(socket_of(topology))
    reads = b"".join(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.READ, at, 0, MIB // 4) for at in range(40))
    writer.write(CHOOSE + reads + nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.DISC, 0, 0, 0))
    writer.write_eof()

    answers = await reader.read()
    await closed(writer)

    assert len(answers) == nbd.GREETING.size + nbd.EXPORT.size + 40 * (nbd.SIMPLE_REPLY.size + MIB // 4)
    status = await topology.guest().wait_status(lambda told: bool(told.content["nbd"]["closed"]))
    assert (status.content["nbd"]["clients"], status.content["nbd"]["closed"]) == (0, {"left": 1})


async def test_client_that_comes_behind_a_resize_is_told_the_new_size(
    iovirt: TopologyFactory, connect: Connect
) -> None:
    """The one that was there goes on, also past the hypervisor's next life."""
    topology = await up(iovirt)
    first = await connect(socket_of(topology))

    resized = main(["disk", "resize", "disk0", "16MiB", "--file", str(topology.topology.source)])
    second = await connect(socket_of(topology))
    while second.size != 2 * SIZE:
        await second.close()
        second = await connect(socket_of(topology))
    topology.hypervisor().kill()
    await topology.hypervisor().restart()
    await second.write(2 * SIZE - 512, b"x" * 512)

    assert resized == 0
    assert (first.size, await first.read(0, 512)) == (SIZE, bytes(512))
    assert await second.read(2 * SIZE - 512, 512) == b"x" * 512


async def test_client_that_reads_no_answers_holds_up_nobody(iovirt: TopologyFactory, connect: Connect) -> None:
    """It has more to come than the socket holds."""
    topology = await up(iovirt)
    honest = await connect(socket_of(topology))
    reader, writer = await asyncio.open_unix_connection(socket_of(topology), limit=4096)
    await reader.readexactly(nbd.GREETING.size)
    reads = b"".join(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.READ, at, 0, MIB) for at in range(200))
    writer.write(CHOOSE + reads)

    for _ in range(20):
        await honest.write(0, b"x" * 4096)
    data = await honest.read(0, 4096)
    await closed(writer)

    assert data == b"x" * 4096


async def test_busy_socket_is_one_line(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """Somebody else listens there, and keeps it."""
    path = tmp_path / "busy"
    topology = iovirt.prepare(tables(socket=str(path)))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        await topology.start("disk0", "hv0")
        gateway = topology.guest()
        gateway.expected_exit = 1
        gateway.start()
        code = await gateway.exited()

    assert code == 1
    assert f"iovirt: error: guest: {path}: the path is in use; stop who listens there" in gateway.log
    assert path.is_socket()


async def test_stop_closes_clients_and_removes_the_socket(iovirt: TopologyFactory, connect: Connect) -> None:
    """Also with requests in flight."""
    topology = await up(iovirt)
    client = await connect(socket_of(topology))
    reading = [asyncio.create_task(client.read(0, MIB)) for _ in range(20)]
    await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)

    topology.guest().terminate()
    code = await topology.guest().exited(STOP_S)
    await client.ended
    await asyncio.gather(*reading, return_exceptions=True)

    assert code == 0
    assert not socket_of(topology).exists()
    assert [path.name for path in RunDir(topology.run_dir.path).leftovers() if "nbd" in path.name] == []
