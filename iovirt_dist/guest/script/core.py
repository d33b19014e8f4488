"""A script guest without I/O: the guest's side of the protocol, and a script that runs between events.

Theory of operation. The script's loads and stores are traps of `GuestCore`, which also walks the rings of armed queues;
what the hypervisor says comes back as an event, and wakes whoever waits for it. A power-on begins a new life: memory is
zeroed and the script starts from its beginning. When it ends, or raises, the machine stops with that as its reason.

The script goes on after every event but `FramesReceived`: messages that are there already are taken first, so that one
doorbell answers them all. `Drained` says that they are. A `TrapRaised` from outside is a doorbell for a queue whose
driver is somewhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from iovirt_dist.guest import core as gc
from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.script.failure import failure_line, failure_trace
from iovirt_dist.guest.script.guest import LoadEnd, ScriptGuest
from iovirt_dist.guest.script.tasks import Scheduler, Task
from iovirt_dist.guest.tracing import guest_points
from iovirt_dist.platform import virt
from iovirt_dist.step import TracePoint
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.wire.messages import GuestState, TrapKind
from iovirt_dist.wire.session import SessionConfig

Script: TypeAlias = Callable[[ScriptGuest], Coroutine[Any, None, None]]
"""What the author of a script writes: ``async def main(guest: ScriptGuest) -> None``."""

ENDED = "script ended"
"""Reason of a guest whose script came to its end."""

_SUPERVISOR = IoPrivilege(1)
"""Scripts access devices as a kernel in S mode does."""
_CROWDED = 3072
"""Messages that may be unacknowledged, below the session's window of 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPlan:
    """What to run.

    Attributes:
        name: The guest.
        memory_bytes: Its RAM.
        script: The coroutine function.
        parameters: For the script.
    """

    name: str
    memory_bytes: int
    script: Script
    parameters: Mapping[str, Any]


class Drained(NamedTuple):
    """Every message that was there has been handled."""


Event: TypeAlias = gc.Started | gc.FramesReceived | gc.TimerFired | gc.StopRequested | gc.TrapRaised | Drained
Action: TypeAlias = gc.Send | gc.Note | TracePoint


class ScriptCore:
    """Sans-IO core of a script guest's process.

    Args:
        config: Who we are.
        hypervisor: Name of the one hypervisor that we talk to.
        plan: What to run.

    Attributes:
        core: The guest's side of the protocol, with state and counts.
        guest: What the script sees in its present life; None while the power is off.
        results: What the script has published, over all its lives.
        tracing: Whether to give a `TracePoint` for each trap.
    """

    def __init__(self, config: SessionConfig, hypervisor: str, plan: ScriptPlan) -> None:
        self.guest: ScriptGuest | None = None
        self.results: dict[str, Any] = {}
        self.tracing = False
        self._plan = plan
        self._memory = ByteMemory(plan.memory_bytes, virt.RAM_BASE)
        self.core = gc.GuestCore(config, hypervisor, self._memory)
        self._scheduler = Scheduler()
        self._main: Task[None] | None = None
        self._power: gc.PowerOn | gc.PowerOff | None = None
        self._posted: deque[gc.TrapRaised] = deque()
        self._now_ns = 0
        self._actions: list[Action] = []

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        self._actions = []
        self._now_ns = now_ns
        if isinstance(event, gc.TrapRaised):
            self._ring(event)
            return self._actions
        if not isinstance(event, Drained):
            self._tell(event)
        if isinstance(event, gc.StopRequested):
            self._end_life()
        elif not isinstance(event, gc.FramesReceived):
            self._go_on()
        return self._actions

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due."""
        due = (self.core.deadline_ns(), self._scheduler.deadline_ns())
        return min((at for at in due if at is not None), default=None)

    # --- RegisterBus: what the script does

    def begin_load(self, address: int, width: int) -> None:
        """Begin a load."""
        self._raise(gc.TrapRaised(TrapKind.MMIO_LOAD, address, width, 1, 0, b"", _SUPERVISOR))

    def store(self, address: int, width: int, value: int) -> None:
        """Store, posted."""
        self._raise(gc.TrapRaised(TrapKind.MMIO_STORE, address, width, 1, value, b"", _SUPERVISOR))

    def say(self, text: str) -> None:
        """Log a line."""
        self._actions.append(gc.Note(f"script: {text}"))

    def _raise(self, trap: gc.TrapRaised) -> None:
        """Raise a trap, or keep it in order while the session's window is nearly full."""
        if self._posted or self.core.opener.stream.unacknowledged() > _CROWDED:
            self._posted.append(trap)
        else:
            self._tell(trap)

    def _ring(self, doorbell: gc.TrapRaised) -> None:
        """Raise a doorbell from outside the script; one that waits already stands for those behind it."""
        if doorbell not in self._posted:
            self._raise(doorbell)

    # --- what the hypervisor does

    def _tell(self, event: gc.Event) -> None:
        """Give the guest's core an event; a point's time is before that of what others make of it."""
        actions = self.core.handle(event, self._now_ns)
        if self.tracing:
            self._actions += guest_points(self._plan.name, self.core.number, event, actions)
        self._take(actions)

    def _take(self, actions: list[gc.Action]) -> None:
        guest = self.guest
        for action in actions:
            if isinstance(action, gc.Send | gc.Note):
                self._actions.append(action)
            elif isinstance(action, gc.CompleteTrap):
                if guest is not None:
                    guest.finish_load(LoadEnd(action.value, action.fault, action.error_code))
            elif isinstance(action, gc.SetLines):
                if guest is not None:
                    guest.lines = action.lines
                    guest.lines_changed.set()
            elif isinstance(action, gc.PowerOn | gc.PowerOff):
                self._power = action  # the script may be running now: see `_go_on`

    def _go_on(self) -> None:
        """Let the script run until it waits, and do what power and it ask for."""
        posted, stream = self._posted, self.core.opener.stream
        while posted and stream.unacknowledged() <= _CROWDED:
            self._tell(posted.popleft())
        while True:
            if self._power is not None:
                self._change_power()
            if self.guest is None:
                return
            self.guest.dma.set()
            self._run()
            if self._power is None:
                return

    def _run(self) -> None:
        assert self._main is not None
        try:
            self._scheduler.run(self._now_ns)
        except Exception as error:  # whatever a script raises
            if trace := failure_trace(error):
                self._actions.append(gc.Note(trace))
            self._stop(f"script failed: {failure_line(error)}")
            return
        if self._main.done:
            self._stop(ENDED)

    def _change_power(self) -> None:
        power, self._power = self._power, None
        assert power is not None
        if isinstance(power, gc.PowerOff):
            self._stop(power.reason)
            return
        self._end_life()
        self._actions.append(gc.Note(f"power on: {power.reason}"))
        plan, memory = self._plan, self._memory
        memory.clear()
        self.guest = ScriptGuest(plan.name, plan.parameters, memory, self, self._scheduler, self.results)
        self.guest.lines = self.core.lines
        self._state(GuestState.RUNNING, "")
        self._main = self._scheduler.spawn(self._start(self.guest))

    async def _start(self, guest: ScriptGuest) -> None:
        await self._plan.script(guest)

    def _stop(self, reason: str) -> None:
        self._actions.append(gc.Note(f"stopped: {reason}"))
        self._state(GuestState.STOPPED, reason)
        self._end_life()

    def _state(self, state: GuestState, reason: str) -> None:
        taken = self.guest.interrupts_taken if self.guest is not None else 0
        self._tell(gc.StateChanged(state, reason, taken, 0))

    def _end_life(self) -> None:
        """End what is left of the script."""
        self.guest = None
        self._main = None
        self._posted.clear()
        for error in self._scheduler.cancel():
            self._actions.append(gc.Note(f"while the script was ended: {failure_line(error)}"))
