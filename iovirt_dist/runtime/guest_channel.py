"""The guest's socket, shared by two threads in turn: who waits, pumps.

The vCPU thread blocks inside a trap. Were the event loop to own the socket, each trap would cost two hand-overs
between threads; measured, that adds 80-100 us to a round trip of 105 us. So the thread that waits for the reply
receives it itself: it holds the channel's lock, takes the socket out of the event loop's sight (an epoll set that
holds nothing but the socket's FD, and that the loop watches), sends, and pumps the core until the trap completes.
While guest code runs, the loop has the socket back and everything else is as usual. Measured, this adds 15-35 us.

Guest memory belongs to the vCPU thread. Completions that come while guest code runs wait in the core, which asks for a
safe point; the kick makes the CPU leave guest code, and the vCPU thread lets the core go on (`safe_point`).
"""

from __future__ import annotations

import asyncio
import logging
import select
import threading
import time
from collections.abc import Callable

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest import core as guest_core
from iovirt_dist.guest.bus import BusClosedError, IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.core import GuestCore, ProgramLoaded, StateChanged, SystemCallRaised, TrapRaised
from iovirt_dist.transport.port import Port
from iovirt_dist.wire.messages import GuestState, TrapKind

log = logging.getLogger(__name__)

_SYSTEM = IoPrivilege(0)
_PATIENCE_MS = 20
"""How soon a waiting vCPU thread notices that the process is stopping, or that the core's deadline has come."""
_CROWDED = 3072
"""Posted stores that may be unacknowledged, below the session's window of 4096."""


class GuestChannel:
    """A `Bus` over a session with the hypervisor.

    Args:
        core: The guest's side of the protocol.
        port: Dialled socket; this object closes it.
        kick: Called, from either thread, when the vCPU must look up at the end of its instruction: a line rose, power
            changed, or it must stop. Must not block.
    """

    def __init__(self, core: GuestCore, port: Port, kick: Callable[[], None]) -> None:
        self.core = core
        self.kick = kick
        self.line_changes = 0
        """Grows with every change of an interrupt line; a halted CPU waits for it to change."""
        self.observe: Callable[[guest_core.Event, list[guest_core.Action]], None] | None = None
        """Told of each step of the core, from either thread; None while nobody looks."""
        self.closing = False
        self._power_on_reason = ""
        self._power_off_reason = ""
        self._port = port
        self._lock = threading.Lock()
        self._completion: guest_core.CompleteTrap | SystemCallOutcome | None = None
        self._lines = 0
        self._epoll = select.epoll()
        self._fileno = port.fileno()
        self._epoll.register(self._fileno, select.EPOLLIN)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the vCPU thread: Bus

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """IN or `rep ins`; see `Bus`."""
        done = self._trap(TrapRaised(TrapKind.PORT_IN, port, width, count, 0, b"", privilege))
        if count == 1:
            return (done.value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")
        return bytes(done.data).ljust(width * count, b"\xff")

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """OUT or `rep outs`; see `Bus`."""
        count = len(data) // width
        if count == 1:
            value = int.from_bytes(data, "little")
            self._trap(TrapRaised(TrapKind.PORT_OUT, port, width, 1, value, b"", privilege))
        else:
            self._trap(TrapRaised(TrapKind.PORT_OUT, port, width, count, 0, data, privilege))

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Load; see `Bus`."""
        done = self._trap(TrapRaised(TrapKind.MMIO_LOAD, address, width, 1, 0, b"", privilege))
        return done.value & ((1 << (8 * width)) - 1)

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Posted store; see `Bus`. Waits only while the session's window is nearly full."""
        self._post(TrapRaised(TrapKind.MMIO_STORE, address, width, 1, value, b"", privilege))

    def acknowledge_interrupt(self) -> int:
        """INTA cycle; see `Bus`."""
        return self._trap(TrapRaised(TrapKind.INTERRUPT_ACKNOWLEDGE, 0, 1, 1, 0, b"", _SYSTEM)).value

    def lines(self) -> int:
        """Asserted interrupt inputs; see `Bus`."""
        return self._lines

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """Which system calls to hand over; see `Bus`."""
        return self.core.intercepted_calls

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Tell of a program; see `Bus`."""
        self._post(ProgramLoaded(process, name, break_start, map_top))

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """System call; see `Bus`."""
        outcome = self._ask(SystemCallRaised(process, call, arguments, buffers, data))
        assert isinstance(outcome, SystemCallOutcome)
        return outcome

    # --- the vCPU thread: life

    def pump_until(self, done: Callable[[], bool]) -> None:
        """Block, handling messages, until `done`, the process is stopping, or power changes."""
        with self._lock:
            self._pump(done)

    def safe_point(self) -> None:
        """Let the core write guest memory, if it waits for that: the CPU is between two runs."""
        if self.core.waits_for_safe_point:
            with self._lock:
                self._handle(guest_core.SafePointReached())
                self._drain(safe=True)

    def take_power_on(self) -> str:
        """Return why the machine must be powered on now, once; empty if it need not."""
        reason, self._power_on_reason = self._power_on_reason, ""
        return reason

    def take_power_off(self) -> str:
        """Return why the machine must be switched off now, once; empty if it need not."""
        reason, self._power_off_reason = self._power_off_reason, ""
        return reason

    @property
    def interrupted(self) -> bool:
        """Whether the machine must leave what it does: power changes or the process is stopping."""
        return self.closing or bool(self._power_on_reason) or bool(self._power_off_reason)

    def state_changed(self, event: StateChanged) -> None:
        """Tell the core about the vCPU's life; it reports to the hypervisor in its own time."""
        with self._lock:
            self._handle(event)
            self._drain(safe=True)

    def _trap(self, event: TrapRaised) -> guest_core.CompleteTrap:
        """Raise a trap and wait for its completion."""
        done = self._ask(event)
        assert isinstance(done, guest_core.CompleteTrap)
        if done.fault >= 0:
            raise GuestFault(done.fault, done.error_code)
        return done

    def _post(self, event: guest_core.Event) -> None:
        """Raise what nobody answers. Waits only while the session's window is nearly full."""
        with self._lock:
            self._check_alive()  # the loop's thread may have held the lock because power changes
            self._handle(event)
            self._drain(safe=True)  # a send may have consumed the socket's edge
            crowded = self._crowded()
        if crowded:
            self.pump_until(lambda: not self._crowded())
            self._check_alive()

    def _ask(self, event: TrapRaised | SystemCallRaised) -> guest_core.CompleteTrap | SystemCallOutcome:
        """Raise what is answered and wait. The message leaves first; the rest is done while it travels."""
        with self._lock:
            self._check_alive()
            self._completion = None
            asserted = self._lines
            self._handle(event)
            if self._completion is None:
                self._pump(lambda: self._completion is not None)
            done = self._completion
        if self._lines & ~asserted:
            self.kick()  # the CPU looks at its lines before it starts the engine, and we are inside the engine
        if done is None:
            raise BusClosedError
        return done

    def _crowded(self) -> bool:
        return self.core.opener.stream.unacknowledged() > _CROWDED

    def _check_alive(self) -> None:
        if self.interrupted:
            raise BusClosedError

    def _pump(self, done: Callable[[], bool]) -> None:
        """With the lock held: take the socket from the loop and handle messages until `done`; leave none behind."""
        self._epoll.modify(self._fileno, 0)
        try:
            if self.core.waits_for_safe_point:
                self._handle(guest_core.SafePointReached())
            while not done() and not self.interrupted:
                self._tick()
                message = self._port.receive_wait(_PATIENCE_MS)
                if message is not None:
                    self._handle(guest_core.FramesReceived(message[1]))
            self._drain(safe=True)
        finally:
            self._epoll.modify(self._fileno, select.EPOLLIN)

    # --- both threads, with the lock held

    def _drain(self, *, safe: bool) -> None:
        """Handle what is there; any use of the socket may have consumed its edge, so that nobody would be woken.

        Args:
            safe: Called by the vCPU thread. The other leaves to it what the core cannot take before it comes.
        """
        port, core = self._port, self.core
        while (safe or not core.full) and port.pending() and (message := port.receive()) is not None:
            self._handle(guest_core.FramesReceived(message[1], safe))

    def _tick(self) -> None:
        deadline = self.core.deadline_ns()
        now_ns = time.monotonic_ns()
        if deadline is not None and deadline <= now_ns:
            self._perform(self.core.handle(guest_core.TimerFired(), now_ns))

    def _handle(self, event: guest_core.Event) -> None:
        actions = self.core.handle(event, time.monotonic_ns())
        if self.observe is not None:
            self.observe(event, actions)
        self._perform(actions)

    def _perform(self, actions: list[guest_core.Action]) -> None:
        for action in actions:
            if isinstance(action, guest_core.CompleteTrap):
                self._completion = action
            elif isinstance(action, guest_core.CompleteCall):
                self._completion = action.outcome
            elif isinstance(action, guest_core.Send):
                self._port.send(b"", action.frames)
            elif isinstance(action, guest_core.SetLines):
                self._set_lines(action.lines)
            elif isinstance(action, guest_core.SeekSafePoint):
                self.kick()
            elif isinstance(action, guest_core.Note):
                log.info("%s", action.text)
            else:
                self._power(action)

    def _set_lines(self, lines: int) -> None:
        rose = lines & ~self._lines
        self._lines = lines
        self.line_changes += 1
        if rose:
            self.kick()

    def _power(self, action: guest_core.PowerOn | guest_core.PowerOff) -> None:
        if isinstance(action, guest_core.PowerOn):
            self._power_on_reason, self._power_off_reason = action.reason, ""
        else:
            self._power_off_reason = action.reason
        self.kick()

    # --- the event loop's thread

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the session and let the loop serve the socket while the vCPU does not."""
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._readable)
        with self._lock:
            self._handle(guest_core.Started())
        self._arm()

    def fail(self, reason: str) -> None:
        """Report that the vCPU thread ended by an error of ours."""
        with self._lock:
            self._handle(StateChanged(GuestState.STOPPED, reason, 0, 0))

    def begin_close(self) -> None:
        """Make the vCPU thread leave whatever it does; call `close` when it has ended."""
        self.closing = True
        self.kick()

    def close(self, reason: str) -> None:
        """Say goodbye and close the socket."""
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._handle(guest_core.StopRequested(reason))
            self._epoll.close()
            self._port.close()

    def _readable(self) -> None:
        """The socket has something and the vCPU thread does not pump."""
        if self._lock.acquire(blocking=False):
            try:
                self._drain(safe=False)
            finally:
                self._lock.release()

    def _on_timer(self) -> None:
        try:
            if self._lock.acquire(blocking=False):
                try:
                    self._tick()
                    self._drain(safe=False)
                finally:
                    self._lock.release()
        finally:
            self._arm()

    def _arm(self) -> None:
        assert self._loop is not None
        deadline = self.core.deadline_ns()
        wait_s = 0.1 if deadline is None else min(max((deadline - time.monotonic_ns()) / 1e9, 0.005), 0.1)
        self._timer = self._loop.call_later(wait_s, self._on_timer)
