"""A script guest as a process: its core on the event loop, with a socket and a clock."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import logging
import sys
import time
from types import ModuleType
from typing import Any

from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.guest.script.core import Script, ScriptCore, ScriptPlan
from iovirt_dist.guest.script.failure import failure_line, failure_trace
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.guest_status import own_status
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.script_loop import ScriptLoop
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.specs import ScriptSpec, Topology
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)


def load_script(spec: ScriptSpec) -> Script:
    """Import a script.

    A file's own folder is searched for what it imports, as ``python FILE`` does.

    Raises:
        ImageError: The file is missing, or the module cannot be imported; a traceback is in the log if it helps.
        ConfigError: There is no such function in it, or it is no coroutine function.
    """
    where = spec.script
    try:
        module = _import(spec)
    except Exception as error:  # a script may fail in any way while it is imported
        if trace := failure_trace(error):
            log.error("%s", trace)
        raise ImageError(f"cannot be imported: {failure_line(error)}", where, "see its log" if trace else "") from None
    function = getattr(module, spec.function, None)
    if function is None:
        names = [name for name, value in vars(module).items() if inspect.iscoroutinefunction(value)]
        raise ConfigError(f"no function '{spec.function}'", where, suggestion(spec.function, names))
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"'{spec.function}' is no coroutine function", where, f"async def {spec.function}(guest)")
    script: Script = function
    return script


def _import(spec: ScriptSpec) -> ModuleType:
    if spec.file is None:
        return importlib.import_module(spec.module)
    sys.path.insert(0, str(spec.file.parent))
    found = importlib.util.spec_from_file_location(spec.module, spec.file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[spec.module] = module
    found.loader.exec_module(module)
    return module


class ScriptProcess:
    """Runs a script guest of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which guest.

    Raises:
        ImageError: The script cannot be imported.
        ConfigError: There is no such coroutine function in it.
    """

    def __init__(self, topology: Topology, spec: ScriptSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        config = SessionConfig(Role.GUEST, spec.name, self._epoch, lease_ms=topology.lease_ns // 1_000_000)
        plan = ScriptPlan(
            name=spec.name, memory_bytes=spec.memory_bytes, script=load_script(spec), parameters=spec.parameters
        )
        self.core = ScriptCore(config, spec.hypervisor, plan)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the guest until `stop` is set; one whose script has ended stays, idle, as every guest does.

        Raises:
            EndpointError: Another process of this name runs.
        """
        run_dir = RunDir(self._topology.run_dir)
        run_dir.create()
        with run_dir.claimed(self._spec.name):
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        loop = ScriptLoop(self._topology, self._spec, self.core, log)
        async with Telemetry(self._topology, self._spec, self._epoch, self.status, loop.trace):
            await stop.wait()
        loop.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state, its own counts, and what the script has published."""
        return {**own_status(self.core.core), "results": dict(self.core.results)}
