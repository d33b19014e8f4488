"""The seam between a queue of many guests and what decides whose turn it is."""

from __future__ import annotations

from typing import Protocol

from iovirt_dist.mux.flow import Flow
from iovirt_dist.mux.queue import Q


class Scheduler(Protocol[Q]):
    """Order among the flows that have items and that no limit holds back: the eligible ones."""

    def wake(self, flow: Flow[Q]) -> None:
        """A flow has become eligible."""
        ...

    def sleep(self, flow: Flow[Q]) -> None:
        """A flow has stopped being eligible, but not by a turn."""
        ...

    def arrived(self, now_ns: int) -> None:
        """Everything pushed, and every flow woken, since the last time has come now; always before `pick`."""
        ...

    def pick(self, now_ns: int) -> tuple[Flow[Q], int, int]:
        """Choose who is next; there is an eligible flow.

        Returns:
            The flow, how many items it may have at most, and what they may cost together (see `Flow.serve`).
        """
        ...

    def served(self, flow: Flow[Q], count: int, cost: int, stays: bool, now_ns: int) -> None:
        """Hear what the flow that was picked last has had.

        Args:
            flow: That flow.
            count: Items, 0 if limits let it have none.
            cost: What they cost; 0 where `pick` said that nobody counts.
            stays: Whether it is still eligible.
            now_ns: Monotonic time.
        """
        ...

    def weights_changed(self, most: int) -> None:
        """Hear that weights have changed; `most` is the largest."""
        ...
