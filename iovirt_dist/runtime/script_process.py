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
from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script.core import Action, Drained, Event, Script, ScriptCore, ScriptPlan
from iovirt_dist.guest.script.failure import failure_line, failure_trace
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.guest_status import own_status
from iovirt_dist.runtime.links import dial_as
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.specs import ScriptSpec, Topology
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.pump import Pump, attach
from iovirt_dist.wire.codec import Buffer
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

    def _switch_trace(self, on: bool) -> None:
        self.core.tracing = on

    async def _run(self, stop: asyncio.Event) -> None:
        port = dial_as(self._topology, self._spec.name, self._spec.hypervisor)
        pump: Pump | None = None
        trace = TraceLog(RunDir(self._topology.run_dir), self._spec.name, self._switch_trace)

        def perform(action: Action) -> None:
            if isinstance(action, gc.Send):
                port.send(ONLY_PEER, action.frames)
            elif isinstance(action, TracePoint):
                trace.add(action)
            else:
                log.info("%s", action.text)

        def settle() -> None:
            """Sending may have consumed the socket's edge: look again."""
            reactor.settle()
            if pump is not None:
                pump.kick()

        reactor: Reactor[Event, Action] = Reactor(self.core, perform, gc.TimerFired(), settle)

        def from_hypervisor(_: bytes, frames: list[Buffer]) -> None:
            reactor.handle(gc.FramesReceived(frames))

        def drained() -> None:
            reactor.handle(Drained())
            settle()

        pump = attach(asyncio.get_running_loop(), port, from_hypervisor, drained)
        reactor.handle(gc.Started())
        settle()
        async with Telemetry(self._topology, self._spec, self._epoch, self.status, trace):
            await stop.wait()
        reactor.handle(gc.StopRequested("shutting down"))
        reactor.close()
        pump.close()
        port.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state, its own counts, and what the script has published."""
        return {**own_status(self.core.core), "results": dict(self.core.results)}
