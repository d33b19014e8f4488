"""Strict priority with aging: a better class goes first, but nobody waits for ever.

Flows of one class take turns. One that has waited for `AGING_NS` has its next turn in the class above its own.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic

from iovirt_dist.mux.flow import UNLIMITED, Flow
from iovirt_dist.mux.queue import Q
from iovirt_dist.platform.qos import Priority

AGING_NS: Final = 100_000_000
"""After so long without service a flow rises by a class: the lowest one waits 0.3 s and a turn of each urgent one."""

TURN_COST: Final = 16384
"""What a flow may have in a turn: four small requests."""


class StrictPriority(Generic[Q]):
    """The better class first (contract: `mux.scheduler.Scheduler`)."""

    def __init__(self) -> None:
        self._classes: tuple[deque[Flow[Q]], ...] = tuple(deque() for _ in Priority)
        self._woken: list[Flow[Q]] = []

    def wake(self, flow: Flow[Q]) -> None:
        """Let the flow join its class; it waits from the next `arrived` on."""
        self._woken.append(flow)

    def sleep(self, flow: Flow[Q]) -> None:
        """Take the flow out of the class that it is in."""
        for members in (self._woken, *self._classes):
            if flow in members:
                members.remove(flow)

    def arrived(self, now_ns: int) -> None:
        """Let woken flows wait, and those rise that have waited too long; each class is in order of waiting."""
        for flow in self._woken:
            self._join(flow, flow.qos.priority, now_ns)
        self._woken.clear()
        for above, members in enumerate(self._classes[1:]):
            while members and members[0].since_ns + AGING_NS <= now_ns:
                self._join(members.popleft(), above, now_ns)

    def pick(self, now_ns: int) -> tuple[Flow[Q], int, int]:  # noqa: ARG002 - the protocol fixes the signature
        """The flow of the best class that has waited longest; a flow alone needs no turns."""
        flow = self._best()[0]
        alone = sum([len(members) for members in self._classes]) == 1
        return flow, UNLIMITED, UNLIMITED if alone else TURN_COST

    def served(self, flow: Flow[Q], count: int, cost: int, stays: bool, now_ns: int) -> None:  # noqa: ARG002 - as above
        """Let the flow wait again, in its own class."""
        self._best().popleft()
        if stays:
            self._join(flow, flow.qos.priority, now_ns)

    def weights_changed(self, most: int) -> None:
        """Weights do not matter."""

    def _best(self) -> deque[Flow[Q]]:
        return next(members for members in self._classes if members)

    def _join(self, flow: Flow[Q], priority: int, now_ns: int) -> None:
        flow.since_ns = now_ns
        self._classes[priority].append(flow)
