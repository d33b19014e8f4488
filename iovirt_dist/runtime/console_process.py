"""The console controller, for a process of its own or a driver domain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.console.config import ConsoleConfig
from iovirt_dist.controllers.console.core import ConsoleAccess, ConsoleController, ConsoleOutcome, TerminalsChanged
from iovirt_dist.controllers.console.runner import ConsoleRunner, TerminalDirectory
from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.runtime.controller_process import serve_controller
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology.specs import ConsoleSpec, Topology


class ConsoleProcess:
    """A console controller: a log file and a pseudo-terminal for each guest. A device, and a process by itself.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: ConsoleSpec) -> None:
        directory = RunDir(topology.run_dir).path / "console"
        self._config = ConsoleConfig(directory=directory, terminals=tuple(topology.terminals_of(spec.name)))
        self._topology = topology
        self._spec = spec
        self.credits = self._config.queue_credits
        self._core = ConsoleController(self._config.terminals, self._config.queue_credits, self._config.burst)

    @property
    def core(self) -> DeviceCore[ConsoleOutcome, ConsoleAccess]:
        """What decides."""
        return self._core

    def open_hands(self, deliver: Callable[[ConsoleOutcome], None]) -> ConsoleRunner:
        """Lock the directory of the terminals, and make what writes and reads them; on the running loop.

        Raises:
            ImageError: The directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        directory = TerminalDirectory(self._config)
        return ConsoleRunner(directory.open_port, deliver, loop.add_reader, loop.remove_reader, directory.close)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then links and locks are gone, logs stay.

        Raises:
            ImageError: The directory of the terminals cannot be used.
        """
        await serve_controller(self._topology, self._spec, self, stop)

    def status(self) -> dict[str, Any]:
        """What the device tells of itself."""
        return asdict(self._core.pairs.counts)

    def reload(self, topology: Topology) -> TerminalsChanged:
        """Have the terminals of the guests that there are now."""
        return TerminalsChanged(tuple(topology.terminals_of(self._spec.name)))
