"""The life of one virtual CPU in its thread: power on, run, halt, stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.guest.core import StateChanged
from iovirt_dist.guest.vcpu import CpuCounters, ExitReason, VirtualCpu
from iovirt_dist.wire.messages import GuestState

log = logging.getLogger(__name__)


class MachineChannel(Protocol):
    """What the loop needs of its channel besides the `Bus` that the CPU was built on."""

    closing: bool
    line_changes: int

    @property
    def interrupted(self) -> bool:
        """Power changes or the process is stopping."""
        ...

    def take_power_on(self) -> str:
        """Why the machine must be powered on now, once; empty if it need not."""
        ...

    def take_power_off(self) -> str:
        """Why the machine must be switched off now, once; empty if it need not."""
        ...

    def pump_until(self, done: Callable[[], bool]) -> None:
        """Block until `done` or `interrupted`."""
        ...

    def safe_point(self) -> None:
        """Write to guest memory what waits for it."""
        ...

    def state_changed(self, event: StateChanged) -> None:
        """Report a state."""
        ...


class VcpuLoop:
    """Runs a CPU until the process stops; `run` is the body of the vCPU thread.

    Args:
        cpu: The CPU, whose bus is `channel`.
        channel: Its way out.
    """

    def __init__(self, cpu: VirtualCpu, channel: MachineChannel) -> None:
        self.cpu = cpu
        self.channel = channel
        self.state = GuestState.STARTING

    def run(self) -> None:
        """Power the machine on and off as the channel says, until the channel closes."""
        channel = self.channel
        while not channel.closing:
            if reason := channel.take_power_on():
                log.info("power on: %s", reason)
                self.cpu.reset()
                self._report(GuestState.RUNNING, "")
                self._run_machine()
            elif reason := channel.take_power_off():
                self._stop(reason)
            else:
                channel.pump_until(lambda: False)

    def _run_machine(self) -> None:
        """Run until the CPU ends, power changes or the process is stopping."""
        channel, cpu = self.channel, self.cpu
        while not channel.interrupted:
            channel.safe_point()
            seen = channel.line_changes
            try:
                outcome = cpu.run()
            except BusClosedError:
                return
            if outcome.reason is ExitReason.STOPPED:
                self._stop(outcome.detail)
                return
            if outcome.reason is ExitReason.HALTED and not channel.interrupted:
                self._report(GuestState.HALTED, "")
                channel.pump_until(lambda: channel.line_changes != seen)  # noqa: B023 - called before the loop goes on
                self._report(GuestState.RUNNING, "")

    def _stop(self, reason: str) -> None:
        log.info("stopped: %s", reason)
        self._report(GuestState.STOPPED, reason)

    def _report(self, state: GuestState, reason: str) -> None:
        self.state = state
        counters: CpuCounters = self.cpu.counters()
        self.channel.state_changed(StateChanged(state, reason, counters.interrupts, counters.faults))
