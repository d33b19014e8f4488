"""Weighted fair queueing: whoever would finish first, were all served at once at rates by weight, is served first.

Virtual time is the finish time of what was served last (S. J. Golestani, "A Self-Clocked Fair Queueing Scheme for
Broadband Applications", IEEE INFOCOM 1994), which needs no simulation of the fluid system.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic

from iovirt_dist.mux.flow import UNLIMITED, Flow
from iovirt_dist.mux.queue import Q

TURN_COST: Final = 12288
"""What a flow may have beyond its turn, at once: three small requests. It pays for them before its next turn."""

SCALE_BITS: Final = 20
"""Virtual time is in millionths of a byte at weight 1, so that division by a weight loses nothing that matters."""


class WeightedFairQueueing(Generic[Q]):
    """Shares by weight with the least delay for those that ask for little (contract: `mux.scheduler.Scheduler`)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Flow[Q]]] = []
        self._virtual = 0
        self._order = 0

    def wake(self, flow: Flow[Q]) -> None:
        """Let the flow begin now, or when what it had before is paid for."""
        flow.start = max(flow.start, self._virtual)
        heapq.heappush(self._heap, self._entry(flow))

    def sleep(self, flow: Flow[Q]) -> None:
        """Take the flow out."""
        self._heap = [entry for entry in self._heap if entry[2] is not flow]
        heapq.heapify(self._heap)

    def arrived(self, now_ns: int) -> None:
        """Times of arrival do not matter."""

    def pick(self, now_ns: int) -> tuple[Flow[Q], int, int]:  # noqa: ARG002 - the protocol fixes the signature
        """The flow with the least finish time, for as long as it has it."""
        heap = self._heap
        flow = heap[0][2]
        if len(heap) == 1:
            return flow, UNLIMITED, UNLIMITED
        rival = heap[1][0] if len(heap) == 2 else min(heap[1][0], heap[2][0])
        return flow, UNLIMITED, TURN_COST + ((rival - flow.start) * flow.qos.weight >> SCALE_BITS)

    def served(self, flow: Flow[Q], count: int, cost: int, stays: bool, now_ns: int) -> None:  # noqa: ARG002 - as above
        """Move the flow's and the common virtual time on; what a flow had alone is free."""
        if len(self._heap) > 1:
            flow.start += (cost << SCALE_BITS) // flow.qos.weight
            self._virtual = max(self._virtual, flow.start)
        if stays:
            heapq.heapreplace(self._heap, self._entry(flow))
        else:
            heapq.heappop(self._heap)

    def weights_changed(self, most: int) -> None:
        """New weights count from each flow's next turn."""

    def _entry(self, flow: Flow[Q]) -> tuple[int, int, Flow[Q]]:
        self._order += 1
        return flow.start + (flow.head_cost() << SCALE_BITS) // flow.qos.weight, self._order, flow
