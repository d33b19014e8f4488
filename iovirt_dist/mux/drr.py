"""Deficit round robin: each flow in turn may have a quantum by its weight, and what it could not use is kept for it.

M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round Robin", IEEE/ACM Transactions on Networking
4(3), 1996. The quantum is divided by the largest weight, so that a turn is short whatever the weights are; rounds in
which nobody has enough for its next request are not walked but calculated.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic

from iovirt_dist.mux.flow import MIN_COST, UNLIMITED, Flow
from iovirt_dist.mux.queue import Q

QUANTUM: Final = 262_144
"""What the flow with the largest weight may have in a turn: 64 small requests, as messages cost more than they do."""


class DeficitRoundRobin(Generic[Q]):
    """Shares by weight, to the byte in the long run (contract: `mux.scheduler.Scheduler`)."""

    def __init__(self) -> None:
        self._ring: deque[Flow[Q]] = deque()
        self._in_turn = False
        self._most_weight = 1

    def wake(self, flow: Flow[Q]) -> None:
        """Let the flow join at the end of the round."""
        flow.deficit = 0
        flow.quantum = max(1, QUANTUM * flow.qos.weight // self._most_weight)
        self._ring.append(flow)

    def sleep(self, flow: Flow[Q]) -> None:
        """Take the flow out of the round."""
        if self._ring[0] is flow:
            self._in_turn = False
        self._ring.remove(flow)

    def arrived(self, now_ns: int) -> None:
        """Times of arrival do not matter."""

    def pick(self, now_ns: int) -> tuple[Flow[Q], int, int]:  # noqa: ARG002 - the protocol fixes the signature
        """The flow whose turn it is, if it has enough for a request; a flow alone needs no turns."""
        ring = self._ring
        if len(ring) == 1:
            return ring[0], UNLIMITED, UNLIMITED
        passed = 0
        while True:
            flow = ring[0]
            if not self._in_turn:
                flow.deficit += flow.quantum
                self._in_turn = True
            if flow.deficit >= flow.head_cost():
                return flow, UNLIMITED, flow.deficit
            self._next()
            passed += 1
            if passed == len(ring):
                self._skip_rounds()
                passed = 0

    def served(self, flow: Flow[Q], count: int, cost: int, stays: bool, now_ns: int) -> None:  # noqa: ARG002 - as above
        """End the turn of a flow that goes or that has not enough for its next request."""
        if not stays:
            self._ring.popleft()
            self._in_turn = False
        elif len(self._ring) == 1:
            flow.deficit = 0
            self._in_turn = False
        else:
            flow.deficit = deficit = flow.deficit - cost
            if deficit < MIN_COST or deficit < flow.head_cost():
                self._next()

    def weights_changed(self, most: int) -> None:
        """Scale quanta by the largest weight."""
        self._most_weight = most
        for flow in self._ring:
            flow.quantum = max(1, QUANTUM * flow.qos.weight // most)

    def _next(self) -> None:
        self._ring.rotate(-1)
        self._in_turn = False

    def _skip_rounds(self) -> None:
        """Give everybody the quanta of all rounds but the last one in which nobody is served."""
        rounds = min((flow.head_cost() - flow.deficit - 1) // flow.quantum for flow in self._ring)
        if rounds > 0:
            for flow in self._ring:
                flow.deficit += rounds * flow.quantum
