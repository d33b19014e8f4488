"""The life of a virtual CPU in its thread, with a CPU and a channel that do as they are told."""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.guest.core import StateChanged
from iovirt_dist.guest.queues import NoMemory
from iovirt_dist.guest.vcpu import CpuCounters, Exit, ExitReason
from iovirt_dist.runtime.vcpu_loop import VcpuLoop
from iovirt_dist.wire.messages import GuestState

KICKED, HALTED = Exit(ExitReason.KICKED), Exit(ExitReason.HALTED)


class Channel:
    """A channel that follows a script.

    Args:
        *script: What happens each time the loop waits, or the CPU's script says so.
    """

    def __init__(self, *script: Callable[[Channel], None]) -> None:
        self.closing = False
        self.line_changes = 0
        self.states: list[tuple[GuestState, str]] = []
        self.power_on_reason = self.power_off_reason = ""
        self.waits = 0
        self.safe_points = 0
        self._script = list(script)

    @property
    def interrupted(self) -> bool:
        """As the real one."""
        return self.closing or bool(self.power_on_reason) or bool(self.power_off_reason)

    def take_power_on(self) -> str:
        """As the real one."""
        reason, self.power_on_reason = self.power_on_reason, ""
        return reason

    def take_power_off(self) -> str:
        """As the real one."""
        reason, self.power_off_reason = self.power_off_reason, ""
        return reason

    def pump_until(self, done: Callable[[], bool]) -> None:
        """Let the script go on until the condition holds; at its end the process stops."""
        self.waits += 1
        while not done() and not self.interrupted:
            if self._script:
                self._script.pop(0)(self)
            else:
                self.closing = True

    def safe_point(self) -> None:
        """Count."""
        self.safe_points += 1

    def state_changed(self, event: StateChanged) -> None:
        """Keep it."""
        self.states.append((event.state, event.reason))


class Cpu:
    """A CPU whose runs end as they are told, at last because the bus closes.

    Args:
        *exits: Ends of its runs.
    """

    def __init__(self, *exits: Exit) -> None:
        self.resets = 0
        self._exits = list(exits)

    def run(self) -> Exit:
        """Next end."""
        if not self._exits:
            raise BusClosedError
        return self._exits.pop(0)

    def kick(self) -> None:
        """Nothing runs."""

    def reset(self) -> None:
        """Count."""
        self.resets += 1

    @property
    def memory(self) -> NoMemory:
        """None."""
        return NoMemory()

    def read_memory(self, address: int, length: int) -> bytes:
        """No memory."""
        raise NotImplementedError

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """No memory."""
        raise NotImplementedError

    def counters(self) -> CpuCounters:
        """Some counts."""
        return CpuCounters(4, 2, 9)


def on(channel: Channel) -> None:
    """The hypervisor is there."""
    channel.power_on_reason = "connected"


def off(channel: Channel) -> None:
    """The machine switches itself off."""
    channel.power_off_reason = "powered off by test device"


def interrupt(channel: Channel) -> None:
    """A line rises."""
    channel.line_changes += 1


def run(channel: Channel, cpu: Cpu) -> list[tuple[GuestState, str]]:
    """Run the loop to its end."""
    VcpuLoop(cpu, channel).run()
    return channel.states


def test_loop_waits_for_power_before_it_runs() -> None:
    """No hypervisor, no machine."""
    channel, cpu = Channel(), Cpu(KICKED)

    assert run(channel, cpu) == []
    assert cpu.resets == 0


def test_loop_resets_and_runs_at_power_on_and_goes_on_after_kicks() -> None:
    """A kick is a look at the lines, no end."""
    channel, cpu = Channel(on), Cpu(KICKED, KICKED)

    assert run(channel, cpu) == [(GuestState.RUNNING, "")]
    assert cpu.resets == 1


def test_loop_offers_a_safe_point_before_each_run() -> None:
    """What waits for guest memory is written before the CPU goes on, also when a kick was for that only."""
    channel, cpu = Channel(on), Cpu(KICKED, KICKED)

    run(channel, cpu)

    assert channel.safe_points == 3


def test_loop_waits_while_the_cpu_is_halted_until_a_line_changes() -> None:
    """And says both."""
    channel, cpu = Channel(on, interrupt), Cpu(HALTED)

    states = run(channel, cpu)

    assert states == [(GuestState.RUNNING, ""), (GuestState.HALTED, ""), (GuestState.RUNNING, "")]


def test_loop_does_not_sleep_over_a_line_that_changed_before_the_halt() -> None:
    """The change between the CPU's last look and its HLT is seen."""
    channel = Channel(on)

    class Racing(Cpu):
        def run(self) -> Exit:
            channel.line_changes += 1
            return super().run()

    states = run(channel, Racing(HALTED, KICKED))

    assert states[-1] == (GuestState.RUNNING, "")


def test_loop_stops_with_the_cpus_reason_and_stays() -> None:
    """A triple fault ends the machine, not the process."""
    channel, cpu = Channel(on), Cpu(Exit(ExitReason.STOPPED, "triple fault"))

    assert run(channel, cpu)[-1] == (GuestState.STOPPED, "triple fault")


def test_loop_stops_when_the_machine_is_switched_off_while_halted() -> None:
    """With the device that asked."""
    channel, cpu = Channel(on, off), Cpu(HALTED)

    assert (GuestState.STOPPED, "powered off by test device") in run(channel, cpu)


def test_loop_powers_a_stopped_machine_on_again() -> None:
    """The hypervisor restarted: its devices are new."""
    channel, cpu = Channel(on, on), Cpu(Exit(ExitReason.STOPPED, "triple fault"), KICKED)

    states = run(channel, cpu)

    assert cpu.resets == 2
    assert [state for state, _ in states] == [GuestState.RUNNING, GuestState.STOPPED, GuestState.RUNNING]


def test_loop_starts_over_when_power_changes_inside_of_a_trap() -> None:
    """The bus closes under the instruction; the next life begins with a reset."""
    channel = Channel(on)

    class ResetInTrap(Cpu):
        def run(self) -> Exit:
            if self.resets == 1:
                channel.power_on_reason = "reset by keyboard controller"
            raise BusClosedError

    cpu = ResetInTrap()

    assert run(channel, cpu) == [(GuestState.RUNNING, ""), (GuestState.RUNNING, "")]
    assert cpu.resets == 2
