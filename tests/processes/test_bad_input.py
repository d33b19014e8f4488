"""Garbage on every socket is counted and refused; nothing dies, and service goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
import zmq

from iovirt_dist.ids import RequestId
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import TopologyFactory
from iovirt_dist.wire.codec import encode
from iovirt_dist.wire.commands import Command, Opcode, pack_commands
from iovirt_dist.wire.messages import Hello, Role, Submit, Trap, TrapKind

DISCARD = Command(RequestId(1, 0, 1).pack(), Opcode.DISCARD, 0, 0, 512)

GARBAGE: list[list[bytes]] = [
    [b""],
    [b"\xff" * 100],
    [bytes(range(256))],
    [b"x" * (1 << 20)],  # an envelope far above the bound
    [b"\x91" * 60_000],  # arrays in arrays in arrays
    [b"\xdd\xff\xff\xff\xff"],  # an array that says it has four thousand million elements
    [b"small", *[b""] * 2000],  # more frames than a message may have
    [msgpack.packb([1, 2, 3])],
    [msgpack.packb({"epoch": 1})],
    [msgpack.packb([1, 0, 0, 0, [99]])],  # a tag that no message has
    [msgpack.packb([1, 0, 0, 0, [1, 1, "x" * 500, 1, 1, 0, []]])],  # a name that is too long
    [msgpack.packb([True, 0, 0, 0, [4, 0]])],  # True is no integer
    [bytes(frame) for frame in encode(1, 0, 0, 0, Hello(Role.GUEST, "nobody", 1, 1))],
    [bytes(frame) for frame in encode(1, 0, 0, 0, Hello(Role.HYPERVISOR, "nobody", 1, 1))],
    [bytes(frame) for frame in encode(1, 0, 0, 0, Hello(Role.GUEST, "guest", 99, 1))],  # a version that nobody speaks
    [bytes(frame) for frame in encode(1, 1, 1, 0, Trap(1, TrapKind.PORT_OUT, 0x1F7, 1, 1, 0x20, 0))],  # no session
    [bytes(frame) for frame in encode(1, 1, 1, 0, Submit(pack_commands([DISCARD])))],
]


@contextmanager
def _socket(kind: zmq.SocketType) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    stranger = context.socket(kind)
    stranger.setsockopt(zmq.LINGER, 2000)
    try:
        yield stranger
    finally:
        stranger.close()
        context.term()


def _rejects(status: ProcessStatus) -> int:
    return sum(status.content["rejects"].values())


@pytest.mark.parametrize("name", ["hv0", "disk0", "tty0"])
async def test_garbage_on_a_listening_socket_is_counted_and_service_goes_on(
    iovirt: TopologyFactory, echo: dict[str, Any], name: str
) -> None:
    """A stranger's junk, oversize frames, bombs and well-formed lies change nothing but the count of rejects."""
    topology = await iovirt.up(**echo)
    await topology.console().expect(r"type lines")

    with _socket(zmq.SocketType.DEALER) as stranger:
        stranger.connect(f"ipc://{topology.run_dir.socket(name)}")
        for frames in GARBAGE:
            stranger.send_multipart(frames)
        status = await topology.process(name).wait_status(lambda status: _rejects(status) >= len(GARBAGE) - 1)
    topology.console().send_line("still here")
    await topology.console().expect(r"^echo: still here$")

    assert status.state == "running"


async def test_garbage_from_a_false_controller_is_counted_and_the_true_one_is_used(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """Whoever listens at a controller's address before it can do no more than be refused."""
    topology = iovirt.prepare(**echo)
    with _socket(zmq.SocketType.ROUTER) as impostor:
        impostor.bind(f"ipc://{topology.run_dir.socket('disk0')}")
        await topology.start("hv0", "tty0", "guest")
        impostor.rcvtimeo = 10_000
        peer = impostor.recv_multipart()[0]
        for frames in GARBAGE:
            impostor.send_multipart([peer, *frames])
        await topology.hypervisor().wait_log("controller disk0: message refused")
    await topology.start("disk0")

    await topology.console().expect(r"type lines")


async def test_garbage_from_a_false_hypervisor_is_counted_by_the_guest(
    iovirt: TopologyFactory, echo: dict[str, Any]
) -> None:
    """The guest counts what it cannot take, waits on, and boots when its hypervisor comes."""
    topology = iovirt.prepare(**echo)
    with _socket(zmq.SocketType.ROUTER) as impostor:
        impostor.bind(f"ipc://{topology.run_dir.socket('hv0')}")
        await topology.start("guest")
        impostor.rcvtimeo = 10_000
        peer = impostor.recv_multipart()[0]
        for frames in GARBAGE:
            impostor.send_multipart([peer, *frames])
        await topology.guest().wait_status(lambda status: _rejects(status) >= len(GARBAGE) - 1)
    await topology.start()

    await topology.console().expect(r"type lines")
