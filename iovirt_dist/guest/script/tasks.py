"""Coroutines without an event loop: they run until all of them wait, and go on when something has happened.

A script awaits only what this module and `guest.script.guest` give it, so that the same script runs on real sockets
and in virtual time, and always in the same order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Coroutine, Generator
from itertools import count
from typing import Any, Generic, TypeVar

from iovirt_dist.errors import LocalError

T = TypeVar("T")


class Event:
    """Something that happens now and then; awaiting it is waiting for the next time."""

    __slots__ = ("_scheduler", "waiting")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.waiting: list[Task[Any]] = []

    def set(self) -> None:
        """It has happened: whoever waits goes on, in the order in which they came."""
        if self.waiting:
            self._scheduler.ready.extend(self.waiting)
            self.waiting.clear()

    def __await__(self) -> Generator[Event, None, None]:
        """Wait for the next time."""
        yield self


class Task(Generic[T]):
    """A coroutine that runs among others; await it for its result. Made by `Scheduler.spawn`."""

    __slots__ = ("coroutine", "done", "ended", "result")

    def __init__(self, coroutine: Coroutine[Any, None, T], ended: Event) -> None:
        self.coroutine = coroutine
        self.ended = ended
        self.done = False
        self.result: T | None = None

    def __await__(self) -> Generator[Event, None, T]:
        """Wait for its end; returns what it returned."""
        while not self.done:
            yield self.ended
        return self.result  # type: ignore[return-value]  # set by whoever set `done`


class Scheduler:
    """Runs tasks in turn.

    Attributes:
        now_ns: Time of the event that tasks run at.
        ready: Tasks that can go on.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.ready: deque[Task[Any]] = deque()
        self._tasks: dict[Task[Any], None] = {}
        self._timers: list[tuple[int, int, Event]] = []
        self._next_timer = count().__next__

    def spawn(self, coroutine: Coroutine[Any, None, T]) -> Task[T]:
        """Let a coroutine run, from the next `run` on."""
        task = Task(coroutine, Event(self))
        self._tasks[task] = None
        self.ready.append(task)
        return task

    def timer(self, delay_ns: int) -> Event:
        """Return an event that happens once, after so long."""
        event = Event(self)
        heapq.heappush(self._timers, (self.now_ns + max(delay_ns, 0), self._next_timer(), event))
        return event

    def deadline_ns(self) -> int | None:
        """When `run` is due for a timer."""
        return self._timers[0][0] if self._timers else None

    def run(self, now_ns: int) -> None:
        """Let tasks go on until all of them wait.

        Raises:
            Exception: Whatever a task raised; the others are left as they are.
        """
        self.now_ns = now_ns
        while self._timers and self._timers[0][0] <= now_ns:
            heapq.heappop(self._timers)[2].set()
        ready = self.ready
        while ready:
            self._step(ready.popleft())

    def _step(self, task: Task[Any]) -> None:
        if task.done:  # waited for two things at once
            return
        try:
            waits_for: object = task.coroutine.send(None)
        except StopIteration as end:
            task.result = end.value
            self._end(task)
            return
        except BaseException:
            self._end(task)
            raise
        if not isinstance(waits_for, Event):
            what = f"a script awaits what its guest gives it, not {type(waits_for).__name__}"
            task.coroutine.close()
            self._end(task)
            raise LocalError(what, fix="use guest.sleep, guest.spawn and the drivers")
        waits_for.waiting.append(task)

    def _end(self, task: Task[Any]) -> None:
        task.done = True
        self._tasks.pop(task, None)
        task.ended.set()

    def cancel(self) -> list[Exception]:
        """End all tasks where they wait, the youngest first; returns what they raised on the way out."""
        errors: list[Exception] = []
        for task in reversed(list(self._tasks)):
            task.done = True
            try:
                task.coroutine.close()
            except Exception as error:  # a script's clean-up may fail in any way
                errors.append(error)
        self._tasks.clear()
        self._timers.clear()
        self.ready.clear()
        return errors
