"""The console controller as a process."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.console.config import ConsoleConfig
from iovirt_dist.controllers.console.core import ConsoleAccess, ConsoleController, ConsoleOutcome
from iovirt_dist.controllers.console.runner import ConsoleRunner, TerminalDirectory
from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.runtime.controller_process import ControllerProcess
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology.specs import ConsoleSpec, Topology


class ConsoleProcess:
    """Runs a console controller: a log file and a pseudo-terminal for each guest.

    Args:
        topology: Where everything is.
        spec: Which controller.
    """

    def __init__(self, topology: Topology, spec: ConsoleSpec) -> None:
        directory = RunDir(topology.run_dir).path / "console"
        self._config = ConsoleConfig(directory=directory, terminals=tuple(topology.terminals_of(spec.name)))
        self._process = ControllerProcess(topology, spec, self._config.queue_credits)
        self._core = ConsoleController(self._config.terminals, self._config.queue_credits, self._config.burst)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then links and locks are gone, logs stay.

        Raises:
            ImageError: The directory of the terminals cannot be used.
        """
        loop = asyncio.get_running_loop()
        core: DeviceCore[ConsoleOutcome, ConsoleAccess] = self._core
        directory = TerminalDirectory(self._config)
        try:
            await self._process.serve(
                stop,
                core,
                lambda deliver: ConsoleRunner(directory.open_port, deliver, loop.add_reader, loop.remove_reader),
                self._status,
            )
        finally:
            directory.close()

    def _status(self) -> dict[str, Any]:
        return asdict(self._core.pairs.counts)
