"""A hypervisor beside a controller process under test: its session and its queue pair, over a real socket."""

from __future__ import annotations

import asyncio
import time

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.topology.specs import ControllerSpec
from iovirt_dist.transport.zeromq import dial
from iovirt_dist.wire.messages import Complete, Role
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, Opened, SendFrames, SessionConfig, SessionOutput

PATIENCE_S = 10.0


class Hypervisor:
    """A hypervisor's end of the session and the queue pair, over a real socket.

    Args:
        spec: The controller.
        unit: What is used there.

    Attributes:
        frames: Lengths of the payload frames of each message that completed something.
    """

    def __init__(self, spec: ControllerSpec, unit: str) -> None:
        self.pair = QueuePair(spec.name)
        self.pair.use(unit)
        self.frames: list[list[int]] = []
        self._port = dial(spec.endpoint)
        self._opener = Opener(SessionConfig(Role.HYPERVISOR, "hv0", time.time_ns()), spec.name)
        self._take(self._opener.start(time.monotonic_ns()))

    async def until_idle(self) -> None:
        """Exchange messages until everything has completed."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._opener.open or self.pair.pending or self.pair.in_flight:
                if self._opener.open and (batch := self.pair.take_batch(0)) is not None:
                    self._take([self._opener.send(*batch, time.monotonic_ns())])
                while (message := self._port.receive()) is not None:
                    self._take(self._opener.receive(message[1], time.monotonic_ns()))
                await asyncio.sleep(0.001)

    def close(self) -> None:
        """Say goodbye."""
        self._take(self._opener.close("done", time.monotonic_ns()))
        self._port.close()

    def _take(self, outputs: list[SessionOutput]) -> None:
        for output in outputs:
            if isinstance(output, SendFrames):
                self._port.send(b"", output.frames)
            elif isinstance(output, Opened):
                self.pair.opened(output.credits, output.resumed)
            elif isinstance(output, Delivered) and isinstance(output.body, Complete):
                self.frames.append([len(frame) for frame in output.payload])
                self.pair.complete(output.body, output.payload, time.monotonic_ns())
