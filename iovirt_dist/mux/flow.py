"""One guest's requests at one controller, in order, and what it may have of the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic

from iovirt_dist.mux.bucket import TokenBucket
from iovirt_dist.mux.queue import Q
from iovirt_dist.platform.qos import DEFAULT_QOS, Qos

MIN_COST: Final = 4096
"""A request costs its bytes of data, and at least these: what it takes a controller to look at it."""

UNLIMITED: Final = 1 << 62
"""More than anything that can be served."""


class Flow(Generic[Q]):
    """A bounded queue with a weight and limits; order among flows is a scheduler's.

    Args:
        name: Whose it is.
        bound: Most items that wait at a time.
        wake: Called when the empty flow has got an item.
        qos: Its share and limits.

    Attributes:
        items: What waits, oldest first.
        in_flight: Items that were served and that are not over yet: whoever ends one takes it off.
        limited: Whether it has a limit at all.
        requests: Items served.
        throttled: How often it had something to serve and had to wait for a limit.
        start: ``wfq``: virtual time at which its next service begins.
        quantum: ``drr``: cost that it may have in a turn.
        deficit: ``drr``: cost that it may still have in its turn.
        since_ns: ``priority``: when it was last served, promoted, or woken.
        runs: ``fifo``, ``deadline``: lists [arrival (ns), order, how many items], of its items from the first on.
        stamped: How many items `runs` is about.
    """

    __slots__ = (
        "_bandwidth",
        "_bound",
        "_iops",
        "_wake",
        "deficit",
        "in_flight",
        "items",
        "limited",
        "name",
        "qos",
        "quantum",
        "requests",
        "runs",
        "since_ns",
        "stamped",
        "start",
        "throttled",
    )

    def __init__(self, name: str, bound: int, wake: Callable[[Flow[Q]], None], qos: Qos = DEFAULT_QOS) -> None:
        self.name = name
        self.items: deque[Q] = deque()
        self.in_flight = 0
        self.requests = 0
        self.throttled = 0
        self.start = 0
        self.quantum = 0
        self.deficit = 0
        self.since_ns = 0
        self.runs: deque[list[int]] = deque()
        self.stamped = 0
        self._bound = bound
        self._wake = wake
        self._iops: TokenBucket | None = None
        self._bandwidth: TokenBucket | None = None
        self.limited = False
        self.set_qos(qos, 0)

    def set_qos(self, qos: Qos, now_ns: int) -> None:
        """Set share and limits from now on."""
        self.qos = qos
        self._iops = _bucket(self._iops, qos.iops, qos.burst_ns, now_ns)
        self._bandwidth = _bucket(self._bandwidth, qos.bandwidth, qos.burst_ns, now_ns)
        self.limited = self._iops is not None or self._bandwidth is not None

    def forget_arrivals(self) -> None:
        """Let all items count as new; see `runs`."""
        self.runs.clear()
        self.stamped = 0

    def push(self, item: Q) -> bool:
        """Queue an item; False and nothing queued where the bound is reached."""
        items = self.items
        if len(items) >= self._bound:
            return False
        items.append(item)
        if len(items) == 1:
            self._wake(self)
        return True

    def push_many(self, items: Sequence[Q]) -> int:
        """Queue as many items as there is room for, in order; returns how many that is."""
        mine = self.items
        idle, room = not mine, self._bound - len(mine)
        count = min(len(items), room)
        mine += items if count == len(items) else items[:count]
        if idle and mine:
            self._wake(self)
        return count

    def head_cost(self) -> int:
        """What the first item costs; there must be one."""
        head = self.items[0]
        cost = head.length
        if cost <= MIN_COST or (cost := head.data_bytes) < MIN_COST:
            return MIN_COST
        return cost

    def ready_ns(self, now_ns: int) -> int:
        """When its limits let it have the next request, `now_ns` for at once."""
        at_ns = now_ns
        for bucket in (self._iops, self._bandwidth):
            if bucket is not None:
                at_ns = max(at_ns, bucket.ready_ns(now_ns))
        return at_ns

    def serve(self, most: int, budget: int, now_ns: int, taken: list[Q]) -> int:
        """Move items to `taken`, as far as limits allow, at least one if they allow any.

        Args:
            most: How many at most, 1 or more.
            budget: What they may cost together; `UNLIMITED` if nobody counts.
            now_ns: Monotonic time.
            taken: Where they go.

        Returns:
            What they cost, 0 if nobody counts.
        """
        if self._iops is not None:
            most = min(most, self._iops.spendable(now_ns))
        if most <= 0:
            return 0
        already = len(taken)
        if budget == UNLIMITED and self._bandwidth is None:
            cost = 0
            self._serve_all(most, taken)
        elif self._bandwidth is None:
            cost = self._serve_counted(most, budget, taken)
        else:
            cost = self._serve_limited(self._bandwidth, most, budget, now_ns, taken)
        count = len(taken) - already
        self.requests += count
        self.in_flight += count
        if self._iops is not None:
            self._iops.pay(count)
        return cost

    def _serve_all(self, most: int, taken: list[Q]) -> None:
        items = self.items
        if most >= len(items):
            taken += items
            items.clear()
        else:
            take = items.popleft
            taken += [take() for _ in range(most)]

    def _serve_counted(self, most: int, budget: int, taken: list[Q]) -> int:
        spent = count = 0
        for item in self.items:
            cost = item.length
            if cost <= MIN_COST or (cost := item.data_bytes) < MIN_COST:
                cost = MIN_COST
            if spent + cost > budget and count:
                break
            spent += cost
            count += 1
            if count == most:
                break
        self._serve_all(count, taken)
        return spent

    def _serve_limited(self, bucket: TokenBucket, most: int, budget: int, now_ns: int, taken: list[Q]) -> int:
        spent = count = moved = 0
        spendable = bucket.spendable(now_ns)
        for item in self.items:
            data_bytes = item.data_bytes
            cost = data_bytes if data_bytes > MIN_COST else MIN_COST
            if moved >= spendable or (spent + cost > budget and count):
                break
            spent += cost
            moved += data_bytes
            count += 1
            if count == most:
                break
        bucket.pay(moved)
        self._serve_all(count, taken)
        return spent


def _bucket(bucket: TokenBucket | None, rate: int, burst_ns: int, now_ns: int) -> TokenBucket | None:
    """The bucket for a rate, the one there was if there was one; None for no limit."""
    if not rate:
        return None
    if bucket is None:
        return TokenBucket(rate, burst_ns, now_ns)
    bucket.change(rate, burst_ns, now_ns)
    return bucket
