"""The core of a script guest against a real hypervisor core: lives, ends, time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_disk
from iovirt_dist.guest.script.core import Drained, ScriptCore, ScriptPlan
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.events import GuestFramesReceived, HypervisorConfig, SendToGuest, Started
from iovirt_dist.hypervisor.plan import GuestPlan
from iovirt_dist.platform.virt import POWEROFF_VALUE, REBOOT_VALUE, RTC_BASE, TEST_BASE, UART_BASE
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.messages import GuestState, Role, TrapKind
from iovirt_dist.wire.session import SessionConfig

SECOND_NS = 1_000_000_000


class Link:
    """A script core and a hypervisor core, joined without wires.

    Args:
        script: What to run.
        parameters: For it.
    """

    def __init__(self, script: Callable[[ScriptGuest], Coroutine[Any, None, None]], **parameters: object) -> None:
        self.now_ns = 0
        self.notes: list[str] = []
        self.points: list[TracePoint] = []
        plan = ScriptPlan(name="load", memory_bytes=1 << 20, script=script, parameters=parameters)
        self.script = ScriptCore(SessionConfig(Role.GUEST, "load", 1, lease_ms=2000), "hv", plan)
        self.start_hypervisor(epoch=1)
        self.happen(gc.Started())

    def start_hypervisor(self, epoch: int) -> None:
        """A new life of the hypervisor."""
        guest = GuestPlan("load", "virt", 1 << 20, None, None)
        self.hypervisor = Hypervisor(HypervisorConfig("hv", epoch, 2000, 0, {"load": guest}, {}))
        self.hypervisor.handle(Started(), self.now_ns)

    def happen(self, event: Any) -> None:
        """Let the guest take an event, and both sides talk until they are silent."""
        frames = self._guest(event)
        while frames:
            answers = [answer for message in frames for answer in self._to_hypervisor(message)]
            frames = [more for answer in answers for more in self._guest(gc.FramesReceived(answer))]
            frames += self._guest(Drained())

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and both timers fire."""
        self.now_ns += int(seconds * SECOND_NS)
        self.happen(gc.TimerFired())

    def _guest(self, event: Any) -> list[Any]:
        actions = self.script.handle(event, self.now_ns)
        self.notes += [action.text for action in actions if isinstance(action, gc.Note)]
        self.points += [action for action in actions if isinstance(action, TracePoint)]
        return [action.frames for action in actions if isinstance(action, gc.Send)]

    def _to_hypervisor(self, frames: Any) -> list[Any]:
        actions = self.hypervisor.handle(GuestFramesReceived(b"load", frames), self.now_ns)
        return [action.frames for action in actions if isinstance(action, SendToGuest)]

    @property
    def state(self) -> tuple[GuestState, str]:
        """How the guest is, and why."""
        return self.script.core.state, self.script.core.reason


def test_script_runs_at_power_on_and_ends_the_guest() -> None:
    """It sees its parameters; what it says and publishes comes out."""

    async def script(guest: ScriptGuest) -> None:
        guest.say(f"depth {guest.parameters['depth']}")
        guest.results["rtc"] = await guest.load(RTC_BASE)

    link = Link(script, depth=64)
    assert link.state == (GuestState.STOPPED, "script ended")
    assert "script: depth 64" in link.notes
    assert list(link.script.results) == ["rtc"]
    assert link.script.core.counts.traps[TrapKind.MMIO_LOAD] == 1


def test_script_whose_device_is_missing_stops_the_guest_with_one_line() -> None:
    """The reason names the script's own line, and needs no traceback."""

    async def script(guest: ScriptGuest) -> None:
        await open_disk(guest.virtio(VirtioSlot.DISK))

    link = Link(script)
    state, reason = link.state
    assert state is GuestState.STOPPED
    assert reason.startswith("script failed: guest load: virtio device at 0x10001000: expected a virtio block device")
    assert "(test_core.py:" in reason
    assert not any("Traceback" in note for note in link.notes)


def test_task_that_raises_ends_the_script_too() -> None:
    """Nothing that a script started fails in silence; the log has the script's part of the traceback."""

    async def fail() -> None:
        raise ValueError("two\nlines")

    async def script(guest: ScriptGuest) -> None:
        guest.spawn(fail())
        await guest.event()

    link = Link(script)
    state, reason = link.state
    assert state is GuestState.STOPPED
    assert reason.startswith("script failed: ValueError: two lines (test_core.py:")
    assert any(note.startswith("Traceback (most recent call last)") and "in fail" in note for note in link.notes)


def test_sleep_takes_time_and_shows_in_the_deadline() -> None:
    """Time is that of the events."""

    async def script(guest: ScriptGuest) -> None:
        before = guest.now_ns()
        await guest.sleep(1.5)
        guest.results["slept"] = guest.now_ns() - before

    link = Link(script)
    assert link.script.deadline_ns() is not None
    link.pass_time(1)
    assert link.script.results == {}
    link.pass_time(1)
    assert link.script.results == {"slept": 2 * SECOND_NS}


def test_reset_begins_a_new_life_with_new_memory() -> None:
    """The script runs again from its beginning; its first life is ended where it waits."""
    lives: list[bytes] = []
    ended: list[str] = []

    async def script(guest: ScriptGuest) -> None:
        lives.append(guest.memory.read(guest.memory.base, 2))
        guest.memory.write(guest.memory.base, b"me")
        if len(lives) == 1:
            guest.store(TEST_BASE, 4, REBOOT_VALUE)
            try:
                await guest.event()
            finally:
                ended.append("first")

    link = Link(script)
    assert lives == [b"\0\0", b"\0\0"]
    assert ended == ["first"]
    assert link.state == (GuestState.STOPPED, "script ended")


def test_power_off_stops_the_script() -> None:
    """As the machine's own hardware says."""

    async def script(guest: ScriptGuest) -> None:
        guest.store(TEST_BASE, 4, POWEROFF_VALUE)
        await guest.event()

    assert Link(script).state == (GuestState.STOPPED, "powered off by test device")


def test_new_hypervisor_starts_the_script_again() -> None:
    """Its devices are new; results of an earlier life stay."""

    async def script(guest: ScriptGuest) -> None:
        guest.results["lives"] = guest.results.get("lives", 0) + 1
        await guest.event()

    link = Link(script)
    link.start_hypervisor(epoch=2)
    for _ in range(8):
        link.pass_time(1)
    assert link.script.results == {"lives": 2}
    assert link.state[0] is GuestState.RUNNING


def test_each_life_begins_with_memory_that_is_zero() -> None:
    """To its last byte, whatever the life before has left."""

    async def script(guest: ScriptGuest) -> None:
        memory = guest.memory
        guest.results["zero"] = [*guest.results.get("zero", []), not any(memory.data)]
        memory.write(memory.base, b"x" * memory.size_bytes)
        await guest.event()

    link = Link(script)
    link.start_hypervisor(epoch=2)
    for _ in range(8):
        link.pass_time(1)
    assert link.script.results == {"zero": [True, True]}


def test_flood_of_stores_is_held_back_and_keeps_its_order() -> None:
    """More posted stores than the session's window: none is lost, and a load behind them sees them all."""

    async def script(guest: ScriptGuest) -> None:
        for at in range(10_000):
            guest.store(UART_BASE + 7, 1, at & 0xFF)
        guest.results["scratch"] = await guest.load(UART_BASE + 7, 1)

    link = Link(script)
    for _ in range(20):
        link.pass_time(0.1)
    assert link.script.results == {"scratch": 9999 & 0xFF}
    assert link.script.core.counts.traps[TrapKind.MMIO_STORE] == 10_000


def test_load_refused_raises_in_the_script() -> None:
    """Where nothing answers, reading gives what the machine says; a script may go on."""

    async def script(guest: ScriptGuest) -> None:
        guest.results["nothing"] = await guest.load(0x4000_0000)

    state, reason = Link(script).state
    assert (state, reason) == (GuestState.STOPPED, "script ended")


@pytest.mark.parametrize("waits", [True, False])
def test_stop_request_ends_the_script_and_the_session(waits: bool) -> None:
    """Clean-up runs, whether it waits or is over."""
    ended: list[bool] = []

    async def script(guest: ScriptGuest) -> None:
        try:
            if waits:
                await guest.event()
        finally:
            ended.append(True)

    link = Link(script)
    link.happen(gc.StopRequested("bye"))
    assert ended == [True]
    assert link.script.guest is None


def test_trace_shows_each_load_and_store_of_the_script() -> None:
    """As of machine code; nothing while nobody looks."""

    async def script(guest: ScriptGuest) -> None:
        guest.store(UART_BASE, 1, 0x21)
        await guest.sleep(1)
        guest.store(UART_BASE, 1, 0x21)
        await guest.load(UART_BASE + 5, width=1)

    link = Link(script)
    untraced = list(link.points)
    link.script.tracing = True
    link.pass_time(1)

    assert untraced == []
    assert [(point.number, point.event, point.fields.get("kind")) for point in link.points] == [
        (2, "raise", "mmio_store"),
        (3, "raise", "mmio_load"),
        (3, "complete", None),
    ]
