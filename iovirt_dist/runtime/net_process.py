"""The network controller as a process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.controllers.net.config import QUEUE_CREDITS, NetConfig, PortConfig, ResponderConfig
from iovirt_dist.controllers.net.core import NetAccess, NetController, NetOutcome
from iovirt_dist.controllers.net.runner import NetRunner
from iovirt_dist.runtime.controller_process import ControllerProcess
from iovirt_dist.topology.specs import NetSpec, ResponderSpec, SwitchPort, Topology


class NetProcess:
    """Runs a network controller: a switch with a port for each guest that the topology plugs in.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: NetSpec) -> None:
        self._process = ControllerProcess(topology, spec, QUEUE_CREDITS)
        self._core = NetController(net_config(topology, spec))
        self._folder = spec.responder.tftp if spec.responder else None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        core: DeviceCore[NetOutcome, NetAccess] = self._core
        wall_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()
        await self._process.serve(stop, core, lambda _: NetRunner(wall_minus_monotonic_ns, self._folder), self._status)

    def _status(self) -> dict[str, Any]:
        return {**asdict(self._core.pairs.counts), **self._core.status()}


def net_config(topology: Topology, spec: NetSpec) -> NetConfig:
    """Translate a topology for one of its switches."""
    return NetConfig(
        ports=tuple(map(_port, topology.ports_of(spec))),
        storm_frames_per_s=spec.storm_frames_per_s,
        responder=_responder(spec.responder, spec.mtu) if spec.responder else None,
        tap=spec.tap,
    )


def _responder(responder: ResponderSpec, mtu: int) -> ResponderConfig:
    return ResponderConfig(
        interface=responder.interface,
        mac=responder.mac,
        vlan=responder.vlan,
        dhcp=responder.dhcp,
        tftp=responder.tftp is not None,
        mtu=mtu,
    )


def _port(port: SwitchPort) -> PortConfig:
    settings = port.settings
    return PortConfig(
        name=port.name,
        peer=port.hypervisor,
        mac=port.mac,
        vlan=settings.vlan,
        anti_spoofing=settings.anti_spoofing,
        mac_limit=settings.mac_limit,
        bytes_per_s=settings.bytes_per_s,
        tap=settings.tap,
    )
