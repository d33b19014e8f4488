"""The entropy controller as a process."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.controllers.rng.core import DrawEntropy, EntropyDrawn, RngController
from iovirt_dist.controllers.rng.runner import EntropyRunner
from iovirt_dist.runtime.controller_process import ControllerProcess
from iovirt_dist.topology.specs import RngSpec, Topology


class RngProcess:
    """Runs an entropy controller on the kernel's random number generator.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: RngSpec) -> None:
        self._core = RngController()
        self._process = ControllerProcess(topology, spec, self._core.pairs.queue_credits)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        core: DeviceCore[EntropyDrawn, DrawEntropy] = self._core
        await self._process.serve(stop, core, lambda _: EntropyRunner(os.urandom), self._status)

    def _status(self) -> dict[str, Any]:
        core = self._core
        return {**asdict(core.pairs.counts), "bytes_given": core.bytes_given, "errors": core.errors}
