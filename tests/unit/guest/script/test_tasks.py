"""Coroutines without an event loop."""

from __future__ import annotations

import asyncio

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.script.tasks import Event, Scheduler


def test_event_wakes_all_that_wait_in_their_order() -> None:
    """Once each; who comes later waits for the next time."""
    scheduler = Scheduler()
    event, seen = Event(scheduler), []

    async def wait(name: str) -> None:
        await event
        seen.append(name)

    for name in ("a", "b"):
        scheduler.spawn(wait(name))
    scheduler.run(0)
    assert seen == []
    event.set()
    scheduler.spawn(wait("late"))
    scheduler.run(0)
    assert seen == ["a", "b"]


def test_task_awaited_gives_its_result_before_and_after_its_end() -> None:
    """Waiting for what is over takes no time."""
    scheduler = Scheduler()

    async def give() -> int:
        return 7

    async def main() -> tuple[int, int]:
        task = scheduler.spawn(give())
        return await task, await task

    task = scheduler.spawn(main())
    scheduler.run(0)
    assert task.done
    assert task.result == (7, 7)


def test_timers_fire_in_order_of_time() -> None:
    """The deadline is the earliest; a negative delay is none."""
    scheduler, seen = Scheduler(), []

    async def wait(name: str, delay_ns: int) -> None:
        await scheduler.timer(delay_ns)
        seen.append((name, scheduler.now_ns))

    for name, delay_ns in (("late", 30), ("soon", 10), ("now", -5)):
        scheduler.spawn(wait(name, delay_ns))
    scheduler.run(100)
    assert scheduler.deadline_ns() == 100
    scheduler.run(100)
    assert scheduler.deadline_ns() == 110
    scheduler.run(130)
    assert seen == [("now", 100), ("soon", 130), ("late", 130)]
    assert scheduler.deadline_ns() is None


def test_run_raises_what_a_task_raises() -> None:
    """Nothing is swallowed."""
    scheduler = Scheduler()

    async def fail() -> None:
        raise ZeroDivisionError

    scheduler.spawn(fail())
    with pytest.raises(ZeroDivisionError):
        scheduler.run(0)


def test_run_refuses_what_belongs_to_another_loop() -> None:
    """An asyncio primitive would never wake a script; the error says what to use."""
    scheduler = Scheduler()
    task = scheduler.spawn(asyncio.sleep(0))
    with pytest.raises(LocalError, match=r"not NoneType; use guest\.sleep"):
        scheduler.run(0)
    assert task.done


def test_cancel_ends_the_youngest_first_and_keeps_errors() -> None:
    """Clean-up runs; one that fails is told and stops nobody."""
    scheduler, ended = Scheduler(), []
    never = Event(scheduler)

    async def wait(name: str) -> None:
        try:
            await never
        finally:
            ended.append(name)
            if name == "b":
                raise ValueError(name)

    for name in ("a", "b", "c"):
        scheduler.spawn(wait(name))
    scheduler.timer(5)
    scheduler.run(0)
    errors = scheduler.cancel()
    assert ended == ["c", "b", "a"]
    assert [repr(error) for error in errors] == ["ValueError('b')"]
    assert scheduler.deadline_ns() is None
    never.set()
    scheduler.run(0)
    assert len(ended) == 3
