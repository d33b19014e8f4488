"""Kicks of a queue that runs, as the gateway's loop and its halt polling hear them; front ends that come and go."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from iovirt_dist.gateway.vhost_user.actions import QueueStarted, QueueStopping, Send
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.device import DeviceFacts
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vm_core import Event, FrontEndCame, FrontEndWent, Kicked, VmCore
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.runtime.front_ends import FrontEnds, Kick
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

DISK = VirtioSlot.DISK
PATIENCE_S = 10.0


class Told:
    """A queue's kicks at one end of an eventfd.

    Attributes:
        events: What was told.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.events: list[str] = []
        self.kick = Kick(fd, HaltPoll(), lambda: self.events.append("kicked"), lambda: self.events.append("gone"))


@pytest.fixture
def told() -> Iterator[Told]:
    """An eventfd that nobody has kicked."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield Told(fd)
    os.close(fd)


def test_kicks_since_the_last_look_are_one(told: Told) -> None:
    """The ring is looked at as a whole."""
    os.eventfd_write(told.fd, 1)
    os.eventfd_write(told.fd, 1)

    looks = [told.kick.drain_pending() for _ in range(2)]

    assert (looks, told.events) == ([True, False], ["kicked"])


def test_kick_that_wakes_the_loop_is_told(told: Told) -> None:
    """Polling begins behind it."""
    os.eventfd_write(told.fd, 1)

    told.kick.woken()

    assert told.events == ["kicked"]


def test_kicks_of_a_queue_at_rest_are_left_alone(told: Told) -> None:
    """Its descriptor may be another's by now."""
    os.eventfd_write(told.fd, 1)
    told.kick.closed = True

    assert not told.kick.drain_pending()
    assert told.events == []
    assert os.eventfd_read(told.fd) == 1


def test_end_of_what_kicks_is_told() -> None:
    """It would be readable for ever."""
    reading, writing = os.pipe()
    os.close(writing)
    told = Told(reading)

    assert not told.kick.drain_pending()

    os.close(reading)
    assert told.events == ["gone"]


class Bench:
    """The sockets of a core that only keeps what happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.core = VmCore(SessionConfig(Role.GUEST, "vm", 1), "hv0", {DISK: Backend(FileMapper())}, serial=False)
        self.core.devices[DISK].backend.describe(DeviceFacts(0, (64,), b""))
        self.front_ends = FrontEnds(self.core, self.happen, HaltPoll())
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
