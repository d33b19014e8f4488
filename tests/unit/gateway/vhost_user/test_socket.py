"""The socket of a device: an honest front end with real descriptors, and others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from iovirt_dist.gateway.vhost_user.actions import (
    MemoryChanged,
    QueueStarted,
    QueueStopping,
    Reset,
    Send,
    Signal,
    StatusChanged,
)
from iovirt_dist.gateway.vhost_user.events import read_eventfd, signal_eventfd
from iovirt_dist.gateway.vhost_user.inflight import queue_bytes
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY, Region, Request
from iovirt_dist.gateway.vhost_user.socket import MAX_UNSENT
from iovirt_dist.virtio.ring import RingSetup, device_ring
from tests.unit.gateway.vhost_user.front_end import (
    ALL_PROTOCOL,
    PROTOCOL,
    VERSION_1,
    address,
    config,
    inflight,
    message,
    number,
    single,
    state,
)
from tests.unit.gateway.vhost_user.socket_client import Client, Device, until

RAM = Region(0x4000_0000, 0x10_0000, 0x7F00_0000_0000, 0)
RING = Region(0, 0x8000, 0x7F10_0000_0000, 0x10_0000)


def guest_memory() -> int:
    """Make the memory of a guest: RAM, and behind it the region with its ring."""
    file = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, RING.file_offset + RING.size_bytes)
    return file


async def negotiate(client: Client) -> None:
    """Do what QEMU does when it connects."""
    assert await client.ask(message(Request.GET_FEATURES)) == struct.pack("=Q", VERSION_1 | 1 << 9 | PROTOCOL)
    assert await client.ask(message(Request.GET_PROTOCOL_FEATURES)) == struct.pack("=Q", ALL_PROTOCOL)
    client.send(number(Request.SET_PROTOCOL_FEATURES, ALL_PROTOCOL))
    assert await client.ask(message(Request.GET_QUEUE_NUM)) == struct.pack("=Q", 2)
    assert await client.ask(message(Request.GET_MAX_MEM_SLOTS)) == struct.pack("=Q", 32)
    client.send(message(Request.SET_OWNER))


async def start_queue(client: Client, memory: int, kick: int, call: int) -> None:
    """Do what QEMU does when the driver is ready."""
    client.send(number(Request.SET_FEATURES, VERSION_1 | PROTOCOL))
    await client.acked(single(Request.ADD_MEM_REG, RAM), memory)
    await client.acked(single(Request.ADD_MEM_REG, RING), memory)
    client.send(state(Request.SET_VRING_NUM, 0, 128))
    client.send(state(Request.SET_VRING_BASE, 0, 0))
    user = RING.user_address
    await client.acked(address(0, user, user + 0x1000, user + 0x2000))
    client.send(number(Request.SET_VRING_KICK, 0), kick)
    client.send(number(Request.SET_VRING_CALL, 0), call)
    await client.acked(state(Request.SET_VRING_ENABLE, 0, 1))


async def test_front_end_like_qemu_is_served(device: Device, path: Path, fds: Callable[[], int]) -> None:
    """From the first message to the last; in between a ring is walked in its memory, kicked and called."""
    client, memory = Client(path), guest_memory()
    kick, call = fds(), fds()
    ram = FileMapper().map(memory, RING.file_offset, RING.size_bytes)

    await negotiate(client)
    client.send(message(Request.SET_BACKEND_REQ_FD), fds())
    assert await client.ask(config(Request.GET_CONFIG, 0, bytes(4))) == struct.pack("=III", 0, 4, 0) + b"0123"
    client.send(inflight(Request.GET_INFLIGHT_FD, 0, 2, 128))
    _, described, (log_file,) = await client.receive()
    await client.acked(message(Request.SET_INFLIGHT_FD, described), log_file)
    await start_queue(client, memory, kick, call)
    client.send(number(Request.SET_STATUS, 15))
    await until(lambda: StatusChanged(15) in device.actions)

    struct.pack_into("<QIHH", ram, 0, RAM.guest_address, 4, 2, 0)
    struct.pack_into("<HHH", ram, 0x1000, 0, 1, 0)
    signal_eventfd(kick)
    vring = device.backend.queues[0]
    assert vring.kick is not None
    assert vring.call is not None
    setup = RingSetup(vring.size, vring.descriptors, vring.driver_area, vring.device_area, device.backend.features)
    assert vring.log.resume(0, vring.size) == []
    assert read_eventfd(vring.kick)
    ring = device_ring(device.backend.memory, setup)
    (chain,) = ring.take(8)
    vring.log.taken([chain.head])
    device.backend.memory.write(chain.writable[0][0], b"done")
    ring.put(chain.head, 4)
    assert ring.publish()
    signal_eventfd(vring.call)

    assert read_eventfd(call)
    assert os.pread(memory, 4, 0) == b"done"
    assert os.pread(log_file, 1, 16) == b"\x01"
    assert await client.ask(state(Request.GET_VRING_BASE, 0, 0)) == struct.pack("=II", 0, 42)
    await client.acked(message(Request.RESET_DEVICE))
    client.socket.close()
    await until(lambda: not device.backend.connected)

    told = [action for action in device.actions if not isinstance(action, MemoryChanged)]
    assert told == [QueueStarted(0), StatusChanged(15), QueueStopping(0), Reset()]
    assert struct.unpack("=QQHHI", described) == (2 * queue_bytes(128), 0, 2, 128, 0)
    assert not device.backend.counts.rejects
    os.close(memory)
    os.close(log_file)


async def test_front_end_that_dies_is_followed_by_another(device: Device, path: Path, fds: Callable[[], int]) -> None:
    """A queue that runs is stopped; the next one starts it again."""
    first, memory = Client(path), guest_memory()
    await negotiate(first)
    await start_queue(first, memory, fds(), fds())

    first.socket.close()
    second = Client(path)
    await negotiate(second)
    await start_queue(second, memory, fds(), fds())
    second.socket.close()
    await until(lambda: not device.backend.connected)

    told = [action for action in device.actions if not isinstance(action, MemoryChanged)]
    assert told == [QueueStarted(0), QueueStopping(0)] * 2
    assert device.backend.counts.connections == 2
    os.close(memory)


async def test_second_front_end_is_sent_away(device: Device, path: Path) -> None:
    """The first one goes on."""
    first = Client(path)
    await negotiate(first)

    second = Client(path)
    await second.closed()

    assert await first.ask(message(Request.GET_QUEUE_NUM)) == struct.pack("=Q", 2)
    first.socket.close()
    second.socket.close()
    assert device.backend.counts.connections == 1


async def test_message_in_pieces_is_one_message(device: Device, path: Path, fds: Callable[[], int]) -> None:
    """Byte by byte; its descriptor comes with the first of them, and the next message has its own."""
    client = Client(path)
    await negotiate(client)
    data = number(Request.SET_VRING_CALL, 1, NEED_REPLY)

    client.send(data[:1], fds())
    for at in range(1, len(data)):
        client.send(data[at : at + 1])
        await asyncio.sleep(0)
    client.send(number(Request.SET_VRING_ERR, 1, NEED_REPLY) + number(Request.SET_VRING_ERR, 0x101, NEED_REPLY), fds())
    replies = [await client.receive() for _ in range(3)]

    assert replies == [(Request.SET_VRING_CALL, bytes(8), []), *[(Request.SET_VRING_ERR, bytes(8), [])] * 2]
    assert device.backend.queues[1].call is not None
    assert device.backend.queues[1].err is None
    client.socket.close()


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        (struct.pack("=III", 1, 0, 0), 0, "version"),
        (struct.pack("=III", 1, 1, 0xFFFF_FFFF), 0, "message-size"),
        (message(Request.GET_FEATURES), 9, "file-count"),
        (message(Request.GET_FEATURES), 8, "file-count"),
        (message(Request.GET_FEATURES, b"?"), 1, "payload-size"),
    ],
)
async def test_front_end_that_breaks_the_protocol_is_cut_off(
    device: Device, path: Path, fds: Callable[[], int], data: bytes, count: int, reason: str
) -> None:
    """Nothing of it is left, and another one is served."""
    client = Client(path)
    client.send(data, *[fds() for _ in range(count)])

    await client.closed()
    await until(lambda: not device.backend.connected)

    assert device.backend.counts.rejects == {reason: 1}
    client.socket.close()
    honest = Client(path)
    await negotiate(honest)
    honest.socket.close()


async def test_front_end_that_goes_amidst_a_message_leaves_nothing(
    device: Device, path: Path, fds: Callable[[], int]
) -> None:
    """Its descriptors are closed, which the fixture checks."""
    client = Client(path)
    client.send(number(Request.SET_VRING_CALL, 0)[:5], fds())
    await until(lambda: device.backend.connected)
    client.socket.close()
    await until(lambda: not device.backend.connected)


async def test_front_end_that_does_not_read_is_cut_off(device: Device, path: Path) -> None:
    """Replies wait up to a bound."""
    client = Client(path)
    await until(lambda: device.backend.connected)
    filled = [Send(bytes(1 << 16)) for _ in range(MAX_UNSENT)]

    device.listener.perform(filled)
    patient = device.backend.connected
    device.listener.perform(filled)

    assert patient
    assert not device.backend.connected
    client.socket.close()


async def test_reply_that_does_not_fit_is_sent_later(device: Device, path: Path) -> None:
    """In one piece, and with its descriptors."""
    client = Client(path)
    await until(lambda: device.backend.connected)
    file = os.memfd_create("sent")
    large = struct.pack("=III", 99, 5, 1 << 20) + bytes(1 << 20)

    device.listener.perform([Send(large), Send(struct.pack("=III", 98, 5, 0), (file,))])
    first, second = await client.receive(), await client.receive()

    assert (first[0], len(first[1]), first[2]) == (99, 1 << 20, [])
    assert (second[0], len(second[2])) == (98, 1)
    os.close(second[2][0])
    client.socket.close()


async def test_front_end_that_gives_up_reading_is_cut_off(device: Device, path: Path) -> None:
    """It still holds its end, and there is room; what waits for it cannot be sent any more."""
    client = Client(path)
    await until(lambda: device.backend.connected)
    device.listener.perform([Send(bytes(1 << 20))])

    with contextlib.suppress(BlockingIOError):
        while client.socket.recv(1 << 16):
            pass
    client.socket.shutdown(socket.SHUT_RD)

    await until(lambda: not device.backend.connected)
    client.socket.close()


async def test_action_for_nobody_is_done_with(device: Device, fds: Callable[[], int]) -> None:
    """A reply closes its descriptors; a signal needs no front end."""
    event = fds()

    device.listener.perform([Send(b"", (os.memfd_create("lost"),)), Signal(event)])

    assert read_eventfd(event)


async def test_front_end_that_cannot_be_accepted_waits(
    device: Device, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is a descriptor for it; it is not tried again and again meanwhile."""
    tried: list[socket.socket] = []

    def refuse(listening: socket.socket) -> None:
        tried.append(listening)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("iovirt_dist.gateway.vhost_user.socket._ACCEPT_AGAIN_S", 3600.0)
    monkeypatch.setattr(socket.socket, "accept", refuse)
    client = Client(path)
    await until(lambda: bool(tried))
    for _ in range(20):
        await asyncio.sleep(0)
    monkeypatch.undo()
    device.listener.listen()
    await until(lambda: device.backend.connected)

    assert len(tried) == 1
    client.socket.close()


async def test_listener_that_stops_closes_its_connection(path: Path) -> None:
    """Queues stop before that."""
    made = Device(path)
    made.listener.start()
    client, memory = Client(path), guest_memory()
    kick, call = os.eventfd(0), os.eventfd(0)
    await negotiate(client)
    await start_queue(client, memory, kick, call)

    made.listener.stop()
    made.listener.stop()
    await client.closed()

    assert made.actions[-1] == QueueStopping(0)
    assert not path.exists()
    client.socket.close()
    for fd in (memory, kick, call):
        os.close(fd)
