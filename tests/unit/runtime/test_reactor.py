"""A core on an event loop: events in, actions out, its timer kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from iovirt_dist.runtime.reactor import Reactor

MS = 1_000_000
PATIENCE_S = 10.0


class Core:
    """Echoes events; is due when told.

    Attributes:
        due_ns: Monotonic deadline, cleared by the timer event.
        fired: Times at which the timer event came.
    """

    def __init__(self) -> None:
        self.due_ns: int | None = None
        self.fired: list[int] = []
        self.ticked = asyncio.Event()

    def handle(self, event: str, now_ns: int) -> list[str]:
        """Echo, twice."""
        if event == "timer":
            self.due_ns = None
            self.fired.append(now_ns)
            self.ticked.set()
        return [event, event.upper()]

    def deadline_ns(self) -> int | None:
        """As told."""
        return self.due_ns


class Bench:
    """A reactor with what it did."""

    def __init__(self) -> None:
        self.core = Core()
        self.done: list[str] = []
        self.reactor: Reactor[str, str] = Reactor(self.core, self.done.append, "timer", self.after)

    def after(self) -> None:
        """After the timer."""
        self.done.append("settled")
        self.reactor.settle()


async def test_reactor_performs_actions_in_order() -> None:
    """At once, in the caller's turn."""
    bench = Bench()

    bench.reactor.handle("a")
    bench.reactor.handle("b")

    assert bench.done == ["a", "A", "b", "B"]


async def test_reactor_handles_an_event_of_an_action_behind_the_others() -> None:
    """What the core wanted before it comes first: else a descriptor is closed that is used behind."""
    core, done = Core(), list[str]()

    def perform(action: str) -> None:
        done.append(action)
        if action == "a":
            reactor.handle("b")

    reactor: Reactor[str, str] = Reactor(core, perform, "timer", lambda: None)

    reactor.handle("a")

    assert done == ["a", "A", "b", "B"]


async def test_reactor_goes_on_after_an_action_that_failed() -> None:
    """The loop reports it."""
    core, done = Core(), list[str]()

    def perform(action: str) -> None:
        if action == "a":
            raise ZeroDivisionError
        done.append(action)

    reactor: Reactor[str, str] = Reactor(core, perform, "timer", lambda: None)
    with pytest.raises(ZeroDivisionError):
        reactor.handle("a")

    reactor.handle("b")

    assert done == ["b", "B"]


async def test_reactor_fires_at_the_deadline_and_not_before() -> None:
    """And settles afterwards."""
    bench = Bench()
    due_ns = bench.core.due_ns = time.monotonic_ns() + 20 * MS
    bench.reactor.settle()

    await asyncio.wait_for(bench.core.ticked.wait(), PATIENCE_S)

    assert bench.done == ["timer", "TIMER", "settled"]
    assert bench.core.fired[0] >= due_ns - 2 * MS  # the loop's clock has a resolution of its own


async def test_reactor_keeps_its_timer_after_a_deadline_at_which_an_action_failed() -> None:
    """Others wait for later ones."""
    loop, errors = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: errors.append(type(context["exception"]).__name__))
    core, settled = Core(), asyncio.Event()

    def fail(action: str) -> None:
        raise ZeroDivisionError(action)

    reactor: Reactor[str, str] = Reactor(core, fail, "timer", settled.set)
    core.due_ns = time.monotonic_ns()
    reactor.settle()

    await asyncio.wait_for(settled.wait(), PATIENCE_S)
    await asyncio.sleep(0)

    assert errors == ["ZeroDivisionError"]


async def test_reactor_takes_a_deadline_that_was_brought_forward() -> None:
    """The first one would come too late."""
    bench = Bench()
    bench.core.due_ns = time.monotonic_ns() + 3600 * 1000 * MS
    bench.reactor.settle()
    bench.core.due_ns = time.monotonic_ns()

    bench.reactor.settle()
    await asyncio.wait_for(bench.core.ticked.wait(), PATIENCE_S)

    assert len(bench.core.fired) == 1
    bench.reactor.close()


async def test_reactor_without_a_deadline_never_fires_and_a_closed_one_no_more() -> None:
    """Nothing is left on the loop."""
    bench = Bench()
    bench.reactor.settle()
    bench.core.due_ns = time.monotonic_ns()
    bench.reactor.settle()

    bench.reactor.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert bench.done == []
