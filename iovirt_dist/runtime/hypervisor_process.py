"""A hypervisor as a process: its core between a ROUTER for guests and a DEALER for each controller."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor import events as hv
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.platform.qos import Qos
from iovirt_dist.runtime.driver_status import driver_status
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.hypervisor_status import guest_status, pair_status
from iovirt_dist.runtime.links import dial_as, follow, listen_as
from iovirt_dist.runtime.plans import guest_plan, hypervisor_config, share_devices
from iovirt_dist.runtime.qos_file import QosFile
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import ScalingFollower
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.topology.specs import HypervisorSpec, Topology
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.pump import attach
from iovirt_dist.wire.codec import Buffer

log = logging.getLogger(__name__)

_GUESTS = ""
"""Key of the guests' socket among the controllers', whose names are never empty."""


class HypervisorProcess:
    """Runs a hypervisor of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which hypervisor.
    """

    def __init__(self, topology: Topology, spec: HypervisorSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        self.core = Hypervisor(hypervisor_config(topology, spec, self._epoch))
        self._qos: QosFile | None = None
        self._sockets: _Sockets | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then say goodbye and close every socket.

        Raises:
            EndpointError: The guests' endpoint cannot be bound.
        """
        trace = TraceLog(RunDir(self._topology.run_dir), self._spec.name, self.core.trace)
        sockets = self._sockets = _Sockets(self.core, self._topology, self._spec.name, trace)
        log.info("listening at %s", self._spec.endpoint)
        self._qos = QosFile(RunDir(self._topology.run_dir).qos(self._spec.name), sockets.set_qos)
        sockets.start()
        follower = ScalingFollower(self._topology, self.reload)
        async with Telemetry(self._topology, self._spec, self._epoch, self.status, trace, follower):
            await stop.wait()
        sockets.close("shutting down")
        self._qos.remove()

    def reload(self, topology: Topology) -> None:
        """Serve the guests that a topology has now: take in new ones, let go of others; the rest goes on as it was.

        Raises:
            ConfigError: A new guest needs a controller to which there is no queue pair; nothing is changed then.
        """
        assert self._sockets is not None, "only while it runs"
        core, pairs = self.core, self.core.config.controllers
        wanted = {str(guest.name): guest for guest in topology.guests_of(self._spec.name)}
        plans = {name: guest_plan(guest, pairs) for name, guest in wanted.items() if name not in core.guests}
        gone = [name for name in core.guests if name not in wanted]
        self._sockets.follow(topology)
        for name in gone:
            self._sockets.take(hv.GuestRemoved(name))
        for name, plan in plans.items():
            share_devices(wanted[name], pairs, time.monotonic_ns())
            self._sockets.take(hv.GuestAdded(plan))
        self._forget_settings(gone)

    def _forget_settings(self, gone: Collection[str]) -> None:
        """Let nothing be left of what was set for guests that are gone; if that fails they are gone all the same."""
        try:
            if self._qos is not None:
                self._qos.forget(gone)
        except LocalError as error:
            log.warning("settings of guests that are gone stay: %s", error)

    def status(self) -> dict[str, Any]:
        """What the status file tells: guests with both sides' counts, controllers with their queue pairs.

        What ``iovirt set`` has written is followed first, so that the file tells what is in force.
        """
        core = self.core
        if self._qos is not None:
            self._qos.poll()
        return {
            "state": "running",
            "qos_revision": self._qos.revision if self._qos is not None else 0,
            "guests": {
                name: {
                    **guest_status(guest, core.acceptor.stream(name)),
                    "drivers": driver_status(guest.vm, self._topology),
                }
                for name, guest in core.guests.items()
            },
            "controllers": {
                name: pair_status(pair, core.openers[name].stream) for name, pair in core.config.controllers.items()
            },
            "rejects": dict(core.acceptor.rejects),
            "refused": dict(self._sockets.refused) if self._sockets is not None else {},
        }


class _Sockets:
    """A hypervisor's core on the running loop, between its sockets.

    Args:
        core: What decides.
        topology: Where everything is.
        name: The hypervisor's.
        trace: Takes trace points.

    Raises:
        EndpointError: The guests' endpoint cannot be bound.
        ConfigError: A key is missing.
    """

    def __init__(self, core: Hypervisor, topology: Topology, name: str, trace: TraceLog) -> None:
        loop = asyncio.get_running_loop()
        self._core = core
        self._name = name
        self._guests = listen_as(topology, name, core.acceptor)
        self._controllers = {controller: dial_as(topology, name, controller) for controller in core.openers}
        self._trace = trace
        self._stirred: set[str] = set()
        self._reactor: Reactor[hv.Event, hv.Action] = Reactor(core, self._perform, hv.TimerFired(), self._settle)
        halt_poll = HaltPoll()
        settle = partial(self._settle, _GUESTS)
        self._pumps = {_GUESTS: attach(loop, self._guests, self._from_guest, settle, halt_poll=halt_poll)}
        for controller, port in self._controllers.items():
            receive = partial(self._from_controller, controller)
            settle = partial(self._settle, controller)
            self._pumps[controller] = attach(loop, port, receive, settle, halt_poll=halt_poll)

    def start(self) -> None:
        """Begin the sessions with the controllers."""
        self._reactor.handle(hv.Started())
        self._settle()

    @property
    def refused(self) -> Mapping[str, int]:
        """Handshakes of guests that failed, by reason."""
        return self._guests.refused

    def follow(self, topology: Topology) -> None:
        """Let the guests of a topology that was scaled connect."""
        follow(topology, self._name, self._guests, self._core.acceptor)

    def set_qos(self, guest: str, device: str, qos: Qos) -> None:
        """Let a guest have more or less of a device."""
        self.take(hv.QosChanged(guest, device, qos))

    def take(self, event: hv.QosChanged | hv.GuestAdded | hv.GuestRemoved) -> None:
        """Let the core take what somebody has decided."""
        self._reactor.handle(event)
        self._settle()

    def close(self, reason: str) -> None:
        """Say goodbye and close every socket."""
        self._reactor.handle(hv.StopRequested(reason))
        self._reactor.close()
        for pump in self._pumps.values():
            pump.close()
        for port in (self._guests, *self._controllers.values()):
            port.close()

    def _from_guest(self, peer: bytes, frames: list[Buffer]) -> None:
        self._reactor.handle(hv.GuestFramesReceived(peer, frames))

    def _from_controller(self, name: str, _: bytes, frames: list[Buffer]) -> None:
        self._reactor.handle(hv.ControllerFramesReceived(name, frames))

    def _perform(self, action: hv.Action) -> None:
        if isinstance(action, hv.SendToGuest):
            self._guests.send(action.peer, action.frames)
            self._stirred.add(_GUESTS)
        elif isinstance(action, hv.SendToController):
            self._controllers[action.controller].send(b"", action.frames)
            self._stirred.add(action.controller)
        elif isinstance(action, hv.Note):
            log.info("%s", action.text)
        else:
            self._trace.add(action)

    def _settle(self, drained: str | None = None) -> None:
        """Sending on a socket that is not being drained may consume its edge: look again."""
        self._reactor.settle()
        if drained is not None:
            self._stirred.discard(drained)
        while self._stirred:
            self._pumps[self._stirred.pop()].kick()
