"""The network controller, for a process of its own or a driver domain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.controllers.net.config import QUEUE_CREDITS, NetConfig, PortConfig, ResponderConfig
from iovirt_dist.controllers.net.core import NetAccess, NetController, NetOutcome, PortsChanged
from iovirt_dist.controllers.net.runner import NetRunner
from iovirt_dist.controllers.net.uplink_runner import Uplink
from iovirt_dist.runtime.controller_process import serve_controller
from iovirt_dist.runtime.tap import open_tap
from iovirt_dist.topology.specs import NetSpec, ResponderSpec, SwitchPort, Topology


class NetProcess:
    """A network controller: a switch with a port for each guest that the topology plugs in.

    It is a device, and a process by itself.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: NetSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._core = NetController(net_config(topology, spec))
        self.credits = QUEUE_CREDITS

    @property
    def core(self) -> DeviceCore[NetOutcome, NetAccess]:
        """What decides."""
        return self._core

    def open_hands(self, deliver: Callable[[NetOutcome], None]) -> NetRunner:
        """Make what writes captures, reads files and has the uplink; on the running loop.

        Raises:
            EndpointError: The interface of the uplink cannot be had.
        """
        folder = self._spec.responder.tftp if self._spec.responder else None
        uplink = _uplink(self._spec, deliver) if self._spec.uplink else None
        return NetRunner(time.time_ns() - time.monotonic_ns(), folder, uplink=uplink)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            EndpointError: The interface of the uplink cannot be had.
        """
        await serve_controller(self._topology, self._spec, self, stop)

    def status(self) -> dict[str, Any]:
        """What the device tells of itself."""
        return {**asdict(self._core.pairs.counts), **self._core.status()}

    def reload(self, topology: Topology) -> PortsChanged:
        """Have ports for the guests that there are now."""
        return PortsChanged(net_config(topology, self._spec).ports)


def _uplink(spec: NetSpec, deliver: Callable[[NetOutcome], None]) -> Uplink:
    """Take the interface; one that was made for us is made again if it is deleted."""
    tap = open_tap(spec.uplink, spec.mtu)
    return Uplink(tap, lambda: open_tap(spec.uplink, spec.mtu, make=tap.made), deliver, asyncio.get_running_loop())


def net_config(topology: Topology, spec: NetSpec) -> NetConfig:
    """Translate a topology for one of its switches."""
    return NetConfig(
        ports=tuple(map(_port, topology.ports_of(spec))),
        storm_frames_per_s=spec.storm_frames_per_s,
        responder=_responder(spec.responder, spec.mtu) if spec.responder else None,
        tap=spec.tap,
        uplink=spec.uplink,
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
