"""Virtual CPUs on a rig: real machine code in one process and in virtual time.

Theory of operation. The CPUs take turns in the caller's thread. A CPU runs until it halts, until something makes it
look up (a line rose, its slice of traps is over, the caller's condition holds), or until it stops; inside a trap the
whole rig is driven until the trap completes. When every CPU halts, virtual time moves on to the next event.

Time passes with messages, so code that computes without a trap would never see its timer. A watchdog thread stops such
code after `COMPUTE_S` of host time and lets as much virtual time pass; after `POLL_S` while the guest awaits a request
of an armed queue, because it may poll the used ring. This is the one place where host time enters: a guest that never
computes that long behaves the same in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.bus import Bus, BusClosedError
from iovirt_dist.guest.core import StateChanged
from iovirt_dist.guest.vcpu import ExitReason, VirtualCpu
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.wire.messages import GuestState

TRAPS_A_TURN = 256
"""A CPU that does not halt gives way to the next one after so many traps."""

COMPUTE_S = 0.1
"""Host time after which code that does not trap is stopped for a look at the interrupt lines."""


POLL_S = 0.01
"""The same while a request of an armed queue is awaited; the doorbell ends the turn, so that this begins there."""


class Driver(Protocol):
    """What the CPUs need of their rig."""

    def step(self) -> None:
        """Let the next thing happen."""
        ...

    def run_for(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        ...

    def now_ns(self) -> int:
        """Virtual time."""
        ...


class RigCpu:
    """One guest's CPU.

    Args:
        guest: Whose bus it uses.
        cpu: The CPU, built on that bus.

    Attributes:
        state: STARTING until the machine is powered on, then as in `GuestState`.
        reason: Why it is in that state.
    """

    def __init__(self, guest: RigGuest, cpu: VirtualCpu) -> None:
        self.guest = guest
        self.cpu = cpu
        self.state = GuestState.STARTING
        self.reason = ""
        self._traps_left = 0
        self._seen_changes = -1
        self._done: Callable[[], bool] = _never
        self._asserted = 0
        self._polls = False
        guest.memory = cpu.memory
        guest.after_trap = self._after_trap

    @property
    def runnable(self) -> bool:
        """Whether `turn` would do anything now."""
        if self.guest.suspended:
            return False
        if self.guest.interrupted:
            return self.guest.running
        if not self.guest.powered or self.state is GuestState.STOPPED:
            return False
        return self.state is not GuestState.HALTED or self.guest.line_changes != self._seen_changes

    def turn(self, done: Callable[[], bool]) -> float:
        """Run until the CPU halts, gives way, stops, or `done` holds.

        Returns:
            Seconds that must pass, because it was stopped in the middle of a computation that long; else 0.
        """
        guest = self.guest
        if not guest.running:
            return 0
        if reason := guest.take_power_on():
            self.cpu.reset()
            self._report(GuestState.RUNNING, reason)
        elif reason := guest.take_power_off():
            self._report(GuestState.STOPPED, reason)
            return 0
        self._done, self._traps_left, self._asserted = done, TRAPS_A_TURN, guest.lines()
        self._seen_changes = guest.line_changes
        if self.state is not GuestState.RUNNING:
            self._report(GuestState.RUNNING, "")
        return self._run()

    def _run(self) -> float:
        self._polls = self.guest.core.queues.awaited
        most_s = POLL_S if self._polls else COMPUTE_S
        watchdog = threading.Timer(most_s, self.cpu.kick)
        watchdog.daemon = True
        watchdog.start()
        before = self.guest.core.counts.traps[:]
        try:
            outcome = self.cpu.run()
        except BusClosedError:
            return 0
        finally:
            watchdog.cancel()
            watchdog.join()
            self._done = _never
        if outcome.reason is ExitReason.STOPPED:
            self._report(GuestState.STOPPED, outcome.detail)
        elif outcome.reason is ExitReason.HALTED:
            self._report(GuestState.HALTED, "")
        computed = outcome.reason is ExitReason.KICKED and before == self.guest.core.counts.traps
        return most_s if computed else 0

    def _after_trap(self) -> None:
        """Called inside the trap: make the CPU look up if there is a reason to."""
        self._traps_left -= 1
        lines = self.guest.lines()
        begins_to_poll = not self._polls and self.guest.core.queues.awaited
        if lines & ~self._asserted or begins_to_poll or self._traps_left <= 0 or self.guest.interrupted or self._done():
            self.cpu.kick()
        self._asserted = lines

    def _report(self, state: GuestState, reason: str) -> None:
        self.state, self.reason = state, reason
        counters = self.cpu.counters()
        self.guest.handle(StateChanged(state, reason, counters.interrupts, counters.faults))


class RigCpus:
    """All CPUs of a rig, in turns.

    Args:
        driver: The rig.
    """

    def __init__(self, driver: Driver) -> None:
        self.by_guest: dict[str, RigCpu] = {}
        self._driver = driver

    def attach(self, guest: RigGuest, make_cpu: Callable[[Bus], VirtualCpu]) -> RigCpu:
        """Give a guest a CPU, fresh from its reset."""
        rig_cpu = self.by_guest[guest.name] = RigCpu(guest, make_cpu(guest))
        return rig_cpu

    def run(self, done: Callable[[], bool], limit_ns: int) -> None:
        """Run all CPUs until `done` holds; it is asked after every trap and every turn.

        Raises:
            LocalError: It does not hold after `limit_ns` of virtual time; the text says where the CPUs stand.
        """
        end_ns = self._driver.now_ns() + limit_ns
        while not done():
            if self._driver.now_ns() > end_ns:
                stand = ", ".join(f"{name} {cpu.state.name.lower()}" for name, cpu in self.by_guest.items())
                raise LocalError(f"condition does not hold after {limit_ns / 1e9:.3g} virtual seconds: {stand}", "rig")
            self._round(done)

    def _round(self, done: Callable[[], bool]) -> None:
        """Give every CPU that can run a turn; let time move on if none can, and pass if one only computes."""
        computed_s, ran = 0.0, False
        for rig_cpu in self.by_guest.values():
            if rig_cpu.runnable:
                ran = True
                computed_s = max(rig_cpu.turn(done), computed_s)
            if done():
                return
        if computed_s:
            self._driver.run_for(int(computed_s * 1e9))
        elif not ran:
            self._driver.step()


def _never() -> bool:
    return False
