"""A script guest's core on the event loop, with a socket, a clock and a trace."""

from __future__ import annotations

import asyncio
import logging

from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script.core import Action, Drained, Event, ScriptCore
from iovirt_dist.runtime.links import dial_as
from iovirt_dist.runtime.log_limit import UNLIMITED
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.specs import GuestSpec, Topology
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.pump import attach
from iovirt_dist.wire.codec import Buffer


class ScriptLoop:
    """Runs a script's core on the running loop, from its construction to `close`.

    Args:
        topology: Where everything is.
        spec: Which guest.
        core: What runs.
        log: Gets what the core notes.

    Attributes:
        trace: Its trace points.
    """

    def __init__(self, topology: Topology, spec: GuestSpec, core: ScriptCore, log: logging.Logger) -> None:
        self._core = core
        self._log = log
        self._port = dial_as(topology, spec.name, spec.hypervisor)
        self.trace = TraceLog(RunDir(topology.run_dir), spec.name, self._switch_trace)
        self._reactor: Reactor[Event, Action] = Reactor(core, self._perform, gc.TimerFired(), self._settle)
        self._pump = attach(asyncio.get_running_loop(), self._port, self._from_hypervisor, self.wake)
        self._reactor.handle(gc.Started())
        self._settle()

    def wake(self) -> None:
        """Let the script go on: something has happened that it waits for."""
        self._reactor.handle(Drained())
        self._settle()

    def close(self) -> None:
        """End the script and its session."""
        self._reactor.handle(gc.StopRequested("shutting down"))
        self._reactor.close()
        self._pump.close()
        self._port.close()

    def _perform(self, action: Action) -> None:
        if isinstance(action, gc.Send):
            self._port.send(ONLY_PEER, action.frames)
        elif isinstance(action, TracePoint):
            self.trace.add(action)
        else:
            self._log.info("%s", action.text, extra=UNLIMITED)

    def _settle(self) -> None:
        """Sending may have consumed the socket's edge: look again."""
        self._reactor.settle()
        self._pump.kick()

    def _from_hypervisor(self, _: bytes, frames: list[Buffer]) -> None:
        self._reactor.handle(gc.FramesReceived(frames))

    def _switch_trace(self, on: bool) -> None:
        self._core.tracing = on
