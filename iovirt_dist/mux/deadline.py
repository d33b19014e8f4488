"""Earliest deadline first, and in order of arrival, which is the same with equal deadlines.

A request's deadline is its arrival plus its guest's latency target (C. L. Liu and J. W. Layland, "Scheduling Algorithms
for Multiprogramming in a Hard-Real-Time Environment", Journal of the ACM 20(1), 1973). Deadlines only order: a request
that has missed its own is served all the same. Requests that arrive in one step have one time and form one run.
"""

from __future__ import annotations

import heapq
from typing import Generic

from iovirt_dist.mux.flow import UNLIMITED, Flow
from iovirt_dist.mux.queue import Q


class EarliestDeadline(Generic[Q]):
    """By arrival and latency target (contract: `mux.scheduler.Scheduler`).

    Args:
        targets: False for order of arrival alone.
    """

    def __init__(self, targets: bool = True) -> None:
        self._heap: list[tuple[int, int, Flow[Q]]] = []
        self._woken: list[Flow[Q]] = []
        self._targets = targets
        self._order = 0

    def wake(self, flow: Flow[Q]) -> None:
        """Let the flow join with the next `arrived`."""
        self._woken.append(flow)

    def sleep(self, flow: Flow[Q]) -> None:
        """Take the flow out; what it still has counts as new if it is woken again."""
        if flow in self._woken:
            self._woken.remove(flow)
        else:
            self._heap = [entry for entry in self._heap if entry[2] is not flow]
            heapq.heapify(self._heap)
        flow.forget_arrivals()

    def arrived(self, now_ns: int) -> None:
        """Note the time at everything that has none."""
        for _, _, flow in self._heap:
            self._stamp(flow, now_ns)
        for flow in self._woken:
            self._stamp(flow, now_ns)
            heapq.heappush(self._heap, self._entry(flow))
        self._woken.clear()

    def pick(self, now_ns: int) -> tuple[Flow[Q], int, int]:  # noqa: ARG002 - the protocol fixes the signature
        """The flow whose first request has the earliest deadline, for all that has the same."""
        flow = self._heap[0][2]
        return flow, UNLIMITED if len(self._heap) == 1 else flow.runs[0][2], UNLIMITED

    def served(self, flow: Flow[Q], count: int, cost: int, stays: bool, now_ns: int) -> None:  # noqa: ARG002 - as above
        """Forget the times of what was served."""
        flow.stamped -= count
        while count:
            run = flow.runs[0]
            done = min(count, run[2])
            run[2] -= done
            count -= done
            if not run[2]:
                flow.runs.popleft()
        if stays:
            heapq.heapreplace(self._heap, self._entry(flow))
        else:
            heapq.heappop(self._heap)

    def weights_changed(self, most: int) -> None:
        """Weights do not matter."""

    def _stamp(self, flow: Flow[Q], now_ns: int) -> None:
        new = len(flow.items) - flow.stamped
        if new:
            self._order += 1
            flow.runs.append([now_ns, self._order, new])
            flow.stamped += new

    def _entry(self, flow: Flow[Q]) -> tuple[int, int, Flow[Q]]:
        at_ns, order, _ = flow.runs[0]
        return (at_ns + flow.qos.latency_ns if self._targets else at_ns), order, flow
