"""The entropy controller, for a process of its own or a driver domain."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.controllers.rng.core import DrawEntropy, EntropyDrawn, RngController
from iovirt_dist.controllers.rng.runner import EntropyRunner
from iovirt_dist.runtime.controller_process import serve_controller
from iovirt_dist.topology.specs import RngSpec, Topology


class RngProcess:
    """An entropy controller on the kernel's random number generator: a device, and as a process by itself.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: RngSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._core = RngController()
        self.credits = self._core.pairs.queue_credits

    @property
    def core(self) -> DeviceCore[EntropyDrawn, DrawEntropy]:
        """What decides."""
        return self._core

    def open_hands(self, _: Callable[[EntropyDrawn], None]) -> EntropyRunner:
        """Make what draws; everything is drawn at once, so nothing is delivered later."""
        return EntropyRunner(os.urandom)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await serve_controller(self._topology, self._spec, self, stop)

    def status(self) -> dict[str, Any]:
        """What the device tells of itself."""
        core = self._core
        return {**asdict(core.pairs.counts), "bytes_given": core.bytes_given, "errors": core.errors}

    def reload(self, _: Topology) -> None:
        """Guests that come and go are nothing to it."""
