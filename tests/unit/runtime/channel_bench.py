"""A guest's channel between two threads, against a hypervisor's end that answers from a script."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.core import GuestCore
from iovirt_dist.runtime.guest_channel import GuestChannel
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    Message,
    Report,
    Role,
    Trap,
    TrapKind,
    TrapReply,
)
from iovirt_dist.wire.queue_messages import Completions
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig
from tests.unit.guest.queue_bench import DriverBench, QueueCompletion, pack_completions

SYSTEM = IoPrivilege(0)
PATIENCE_S = 10.0
PEER = b"alice"

Answer = Callable[[Any, Sequence[Buffer]], Sequence[tuple[Message, tuple[bytes, ...]]]]
"""What is said to a `Trap`, a `SystemCall` or a `Doorbell` with its payload."""


def answer_all(trap: Any, payload: Sequence[Buffer]) -> Sequence[tuple[Message, tuple[bytes, ...]]]:
    """Reads return the trap's number; string reads as many bytes as were asked; stores need nothing."""
    if not isinstance(trap, Trap) or trap.kind is TrapKind.MMIO_STORE:
        return ()
    string = trap.kind is TrapKind.PORT_IN and trap.count > 1
    return ((TrapReply(trap.number, trap.number), (bytes(trap.width * trap.count),) if string else ()),)


class HypervisorPort:
    """A dialling port with a hypervisor's session end right behind it; time does not pass for that end.

    Args:
        answer: What it says to each trap.

    Attributes:
        traps: Traps received, with payload.
        others: Doorbells, system calls and other messages, with payload.
        closed: Whether the port was closed.
    """

    def __init__(self, answer: Answer = answer_all) -> None:
        self.traps: list[tuple[Trap, list[bytes]]] = []
        self.others: list[tuple[Message, list[bytes]]] = []
        self.closed = False
        self._answer = answer
        self._acceptor = Acceptor(SessionConfig(Role.HYPERVISOR, "hv", 9, lease_ms=600_000), lambda _hello: None)
        self._arrived: deque[list[Buffer]] = deque()
        self._there = threading.Condition()

        self._reader, self._writer = socket.socketpair()

    @property
    def endpoint(self) -> str:
        """No address."""
        return "fake"

    def say(self, body: Message, *payload: bytes) -> None:
        """Send a message, from any thread."""
        with self._there:
            self._put(self._acceptor.send(PEER, body, payload, 0).frames)

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """What the guest says."""
        if not frames:
            return True
        with self._there:
            for output in self._acceptor.receive(PEER, list(frames), 0):
                if isinstance(output, SendFrames):
                    self._put(output.frames)
                elif isinstance(output, Delivered) and not isinstance(output.body, Report):
                    frames_kept = [bytes(frame) for frame in output.payload]
                    if isinstance(output.body, Trap):
                        self.traps.append((output.body, frames_kept))
                    else:
                        self.others.append((output.body, frames_kept))
                    for body, payload in self._answer(output.body, output.payload):
                        self._put(self._acceptor.send(PEER, body, payload, 0).frames)
        return True

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Next message."""
        return self.receive_wait(0)

    def receive_wait(self, timeout_ms: int) -> tuple[bytes, list[Buffer]] | None:
        """Wait for the next message."""
        with self._there:
            self._there.wait_for(lambda: self._arrived, timeout_ms / 1000)
            if not self._arrived:
                return None
            self._reader.recv(1)
            return b"", self._arrived.popleft()

    def pending(self) -> bool:
        """Whether there is one."""
        return bool(self._arrived)

    def fileno(self) -> int:
        """Readable while there is one."""
        return self._reader.fileno()

    def close(self) -> None:
        """Close."""
        self.closed = True
        self._reader.close()
        self._writer.close()

    def _put(self, frames: Sequence[Buffer]) -> None:
        if frames:
            self._arrived.append([bytes(frame) for frame in frames])
            self._writer.send(b"!")
            self._there.notify_all()


class Bench:
    """A channel on a loop, powered on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Answer = answer_all) -> None:
        self.loop = loop
        self.port = HypervisorPort(answer)
        self.kicks = 0
        self.driver = DriverBench()
        self.core = GuestCore(SessionConfig(Role.GUEST, "alice", 3, lease_ms=600_000), "hv", self.driver.memory)
        self.channel = GuestChannel(self.core, self.port, self._kick)

    def power_on(self) -> None:
        """Open, and take the power-on as the vCPU loop does."""
        self.channel.open(self.loop)
        self.channel.pump_until(lambda: self.core.opener.open)
        assert self.channel.take_power_on() == "connected to hypervisor hv"
        self.kicks = 0

    async def in_vcpu_thread(self, work: Callable[[], object]) -> object:
        """Run in another thread while the loop goes on."""
        return await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S)

    async def until(self, done: Callable[[], bool]) -> None:
        """Let the loop go on until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                await asyncio.sleep(0.001)

    def _kick(self) -> None:
        self.kicks += 1


def complete(head: int, data: bytes, lines: tuple[int, ...] = ()) -> tuple[Message, tuple[bytes, ...]]:
    """A completion with its payload."""
    return Completions(2, 1, 7, True, pack_completions([QueueCompletion(head, len(data), 0)]), lines), (data,)


async def armed(make: Callable[..., Bench], answer: Answer = answer_all) -> Bench:
    """A bench whose queue is armed."""
    bench = make(answer)
    bench.port.say(bench.driver.arm)
    await bench.until(lambda: bench.core.waits_for_safe_point)
    bench.channel.safe_point()
    bench.kicks = 0
    return bench
