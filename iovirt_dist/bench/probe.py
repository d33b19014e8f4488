"""A guest without a CPU: the thread that asks plays the vCPU thread of a guest process, the loop runs in another."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.core import GuestCore
from iovirt_dist.runtime.guest_channel import GuestChannel
from iovirt_dist.runtime.service import run_loop
from iovirt_dist.topology import Topology
from iovirt_dist.transport.zeromq import dial
from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

POWER_ON_WITHIN_S = 10.0


class ProbeGuest:
    """A session with a hypervisor, as a context; inside it the machine is powered on.

    Args:
        topology: Its hypervisor and what it serves run already.
        name: Guest of the topology, whose process does not run.
        memory: Its RAM, if it has armed queues.
    """

    def __init__(self, topology: Topology, name: str, memory: GuestMemory | None = None) -> None:
        spec = topology.guest(name)
        self._name = name
        config = SessionConfig(Role.GUEST, name, time.time_ns(), lease_ms=topology.lease_ns // 1_000_000)
        core = GuestCore(config, spec.hypervisor, memory)
        self.channel = GuestChannel(core, dial(topology.hypervisor(spec.hypervisor).endpoint), lambda: None)
        self._open = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: run_loop(self._serve()), name="loop", daemon=True)

    def __enter__(self) -> GuestChannel:
        self._thread.start()
        self._open.wait()
        deadline = time.monotonic() + POWER_ON_WITHIN_S
        channel = self.channel
        channel.pump_until(lambda: time.monotonic() > deadline)
        if not channel.take_power_on():
            self.__exit__(None, None, None)
            raise LocalError(f"the machine was not powered on within {POWER_ON_WITHIN_S:.0f} s", self._name)
        return channel

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.channel.open(self._loop)
        self._open.set()
        await self._stop.wait()
        self.channel.begin_close()
        self.channel.close("measured")
