"""Kicks of a gateway's queues on the loop, and a front end whose end is found in the midst of other actions."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from iovirt_dist.gateway.vhost_user.actions import QueueStarted, QueueStopping, Send
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.device import DeviceFacts
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vm_core import Event, FrontEndCame, FrontEndWent, Kicked, VmCore
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.runtime.front_ends import FrontEnds
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

DISK = VirtioSlot.DISK
PATIENCE_S = 10.0


class Bench:
    """The sockets of a core that only keeps what happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.core = VmCore(SessionConfig(Role.GUEST, "vm", 1), "hv0", {DISK: Backend(FileMapper())}, serial=False)
        self.core.devices[DISK].backend.describe(DeviceFacts(0, (64,), b""))
        self.front_ends = FrontEnds(self.core, self.happen)
        self.front_ends.listen(DISK, path)
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.core.devices[DISK].backend.queues[0].kick = self.kick

    def happen(self, event: Event) -> None:
        """Keep it; the core knows who is connected."""
        self.events.append(event)
        self.core.devices[DISK].connected = isinstance(event, FrontEndCame)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench that is taken down."""
    made = Bench(tmp_path / "disk.vu")
    yield made
    made.front_ends.close()
    os.close(made.kick)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def test_kick_of_a_queue_that_runs_is_an_event(bench: Bench) -> None:
    """As often as it is kicked."""
    bench.front_ends.perform(DISK, QueueStarted(0))
    os.eventfd_write(bench.kick, 1)
    await until(lambda: bench.events == [Kicked(DISK, 0)])

    os.eventfd_write(bench.kick, 3)
    await until(lambda: bench.events == [Kicked(DISK, 0)] * 2)


async def test_kick_of_a_queue_that_has_stopped_is_none(bench: Bench) -> None:
    """Its descriptor is not looked at any more."""
    bench.front_ends.perform(DISK, QueueStarted(0))
    bench.front_ends.perform(DISK, QueueStopping(0))
    os.eventfd_write(bench.kick, 1)
    for _ in range(3):
        await asyncio.sleep(0)

    assert bench.events == []
    assert os.eventfd_read(bench.kick) == 1


async def test_front_end_that_cannot_be_answered_has_gone(bench: Bench) -> None:
    """Its core hears of it once."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(bench.path))
        await until(lambda: bench.events == [FrontEndCame(DISK)])
    bench.front_ends.perform(DISK, Send(b"x"))
    await asyncio.sleep(0)

    assert bench.events == [FrontEndCame(DISK), FrontEndWent(DISK)]
