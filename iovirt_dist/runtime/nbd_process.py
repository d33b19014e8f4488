"""An NBD gateway as a process: a script guest whose script serves clients, and their sockets on the same loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any, Final

from iovirt_dist.errors import LocalError
from iovirt_dist.gateway.nbd.server import FEATURES, Server
from iovirt_dist.guest.script.core import ScriptCore, ScriptPlan
from iovirt_dist.guest.script.disk import Disk, open_disk
from iovirt_dist.guest.script.failure import failure_line
from iovirt_dist.guest.script.guest import ScriptGuest
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.guest_status import own_status
from iovirt_dist.runtime.nbd_listener import NbdProtocol, listening_socket
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.script_loop import ScriptLoop
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.topology.specs import NbdSpec, Topology
from iovirt_dist.wire.messages import GuestState, Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)

DEPTH: Final = 85
"""Requests in flight at the disk: as many as its queue of 256 descriptors holds."""
MAX_PIECE_BYTES: Final = 1 << 20
"""Most data of one of them: longer ones gain nothing."""
_OVERHEAD_BYTES: Final = 1 << 20
"""Of the guest's memory, for the ring and what rounding takes."""


def piece_bytes(memory_bytes: int) -> int:
    """Return how much data each request in flight may have, a power of two from 4 KiB on, in so much memory."""
    share = max(memory_bytes - _OVERHEAD_BYTES, 0) // DEPTH
    return min(max(1 << share.bit_length() - 1 if share else 0, 4096), MAX_PIECE_BYTES)


class NbdProcess:
    """Runs a gateway of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which gateway.
    """

    def __init__(self, topology: Topology, spec: NbdSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        config = SessionConfig(Role.GUEST, spec.name, self._epoch, lease_ms=topology.lease_ns // 1_000_000)
        plan = ScriptPlan(name=spec.name, memory_bytes=spec.memory_bytes, script=self._serve, parameters={})
        self.core = ScriptCore(config, spec.hypervisor, plan)
        self.server = Server(spec.export, f"disk of {spec.name}")
        self._ready = asyncio.Event()
        self._protocols: set[NbdProtocol] = set()
        self._stop = asyncio.Event()
        self._failure = ""
        self._script: ScriptLoop | None = None
        self._waking = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            EndpointError: The socket or port is in use, or another process of this name runs.
            LocalError: The disk's driver fails; a new process may do better.
        """
        run_dir = RunDir(self._topology.run_dir)
        run_dir.create()
        with run_dir.claimed(self._spec.name):
            listener = listening_socket(self._spec.socket, self._spec.port)
            try:
                await self._run(stop, listener)
                if self._failure:
                    raise LocalError(f"the disk cannot be used: {self._failure}", self._spec.name)
            finally:
                listener.close()
                if self._spec.socket is not None:
                    self._spec.socket.unlink(missing_ok=True)

    async def _run(self, stop: asyncio.Event, listener: socket.socket) -> None:
        self._stop = stop
        self._script = ScriptLoop(self._topology, self._spec, self.core, log)
        accepting = asyncio.create_task(self._accept(listener))
        async with Telemetry(self._topology, self._spec, self._epoch, self.status, self._script.trace):
            await stop.wait()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        for protocol in tuple(self._protocols):
            protocol.shut()
        self._script.close()

    async def _accept(self, listener: socket.socket) -> None:
        """Let clients in once there is a disk: its size is the first thing that they are told."""
        await self._ready.wait()
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # too many files: a client less
                log.warning("cannot accept a client: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, client)

    def _protocol(self) -> NbdProtocol:
        return NbdProtocol(self.server, self._wake, self._protocols)

    async def _serve(self, guest: ScriptGuest) -> None:
        """The script: one life of the guest. It fails with the process, as clients could only wait."""
        try:
            await self._serve_disk(guest)
        except Exception as error:
            self._failure = failure_line(error)
            self._stop.set()
            raise

    async def _serve_disk(self, guest: ScriptGuest) -> None:
        disk = await open_disk(
            guest.virtio(VirtioSlot.DISK),
            depth=DEPTH,
            io_bytes=piece_bytes(self._spec.memory_bytes),
            features=FEATURES,
        )
        self.server.attach(disk)
        guest.spawn(self._follow(disk))
        self._ready.set()
        try:
            while True:
                self.server.turn()
                for protocol in tuple(self._protocols):
                    protocol.look()
                await disk.queue.wait()
        finally:
            self.server.detach()

    async def _follow(self, disk: Disk) -> None:
        """Have clients told of the disk's size when it changes."""
        while True:
            await disk.device.configured
            self.server.resized(await disk.measure())

    def _wake(self) -> None:
        """Let the script have a turn when all sockets of this turn of the loop have been read."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._waking = False
        if self._script is not None:
            self._script.wake()

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state, where clients find it, and how they fare."""
        own = own_status(self.core.core)
        ready = self.core.core.state is GuestState.RUNNING and self._ready.is_set()
        if ready:
            own["reason"] = own["reason"] or self._spec.uri
        return {**own, "nbd": {"ready": ready, "uri": self._spec.uri, **self.server.status()}}
