"""Many guests at one controller: a bounded queue for each, a scheduler between them, limits on each.

Theory of operation. A guest's queue, its *flow*, is idle while it has nothing, eligible while it has something and
nothing holds it back, throttled while a limit does, full while it has its share in flight; only eligible flows are
known to the scheduler. `take` lets the scheduler choose, and moves requests until there is no more room.

What lies in the controller's queue pair can be put in order no more, so while guests compete only some requests should
be in flight, and the rest waits here. Where shares are by weight, those are `depth` small ones for each guest that
competes, and each has its share of them by weight and no more, even while others have nothing to send: a guest that got
a batch back is about to send the next one, and would find its place taken. Nobody has much more than `depth`, unless
others then had hardly anything: a ring holds 85 requests, and who is to have more than others must have some waiting
here while others come and go. A guest with nothing in flight and nothing waiting does not compete. Other schedulers
order requests of all guests, and have `depth` in flight in all.

Messages cost more than requests, so a guest whose share is in flight goes on when a quarter of it is free, not one by
one as its requests end: what is served together comes back together.

A guest that floods fills its own flow; before that its ring is full, as nothing that waits here is completed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Generic

from iovirt_dist.mux.deadline import EarliestDeadline
from iovirt_dist.mux.drr import DeficitRoundRobin
from iovirt_dist.mux.flow import MIN_COST, UNLIMITED, Flow
from iovirt_dist.mux.priority import StrictPriority
from iovirt_dist.mux.queue import Q
from iovirt_dist.mux.scheduler import Scheduler
from iovirt_dist.mux.wfq import WeightedFairQueueing
from iovirt_dist.platform.qos import DEFAULT_QOS, Qos, SchedulerKind

BOUND: Final = 4096
"""Most requests of one guest that wait: more than all its rings hold."""

DEPTH: Final = 32
"""Small requests in flight for a guest that competes: enough for a batch, and much less than its rings hold."""

LEAST_IN_FLIGHT: Final = 4
"""So many of the largest requests may be in flight for each guest that competes, however large they are."""

BY_WEIGHT: Final = frozenset({SchedulerKind.DRR, SchedulerKind.WFQ})
"""Schedulers that share by weight."""

PARTS: Final = 4
"""Of a guest's share; one part must be free before it goes on."""

MANY: Final = 8
"""If more guests than these compete, all alike, each has twice as much at a time: its next turn is far away."""

_FINE: Final = 1 << 20
"""Parts of a byte of cost, so that dividing by weights loses nothing that matters."""

COMPETITION_NS: Final = 50_000_000
"""For so long after two guests were served in turn they count as competing."""


def make_scheduler(kind: SchedulerKind) -> Scheduler[Q]:
    """Build a scheduler."""
    if kind is SchedulerKind.FIFO:
        return EarliestDeadline(targets=False)
    if kind is SchedulerKind.DEADLINE:
        return EarliestDeadline()
    if kind is SchedulerKind.PRIORITY:
        return StrictPriority()
    return WeightedFairQueueing() if kind is SchedulerKind.WFQ else DeficitRoundRobin()


class MultiQueue(Generic[Q]):
    """Requests of many guests that wait for a controller, each guest's in order and within a bound of its own.

    Args:
        kind: Order among guests.
        bound: Most requests of one guest that wait at a time.
        depth: How many small requests should be in flight while guests compete, for each of them where shares are by
            weight, else in all; 0 for as many as the controller takes, as where commands are parked there until
            something happens.
        qos: Shares and limits by guest name; `DEFAULT_QOS` for others.
    """

    def __init__(
        self,
        kind: SchedulerKind = SchedulerKind.DRR,
        bound: int = BOUND,
        depth: int = DEPTH,
        qos: Mapping[str, Qos] | None = None,
    ) -> None:
        self.kind = kind
        self.depth = depth
        self.bound = bound
        self._scheduler: Scheduler[Q] = make_scheduler(kind)
        self._qos = dict(qos or {})
        self._flows: dict[str, Flow[Q]] = {}
        self._flow_of: dict[int, Flow[Q]] = {}
        self._returned: deque[Q] = deque()
        self._eligible = 0
        self._throttled: dict[Flow[Q], int] = {}
        self._full: list[Flow[Q]] = []
        self._woken: list[Flow[Q]] = []
        self._share = 0
        self._last: Flow[Q] | None = None
        self._competed_ns = -COMPETITION_NS
        self._scheduler.weights_changed(self._most_weight())

    # --- guests

    def enroll(self, guest: int, name: str) -> None:
        """Say whose instance this is: all instances of one name share a flow. Before `entry`."""
        self._flow_of[guest] = self._flow(name)

    def dismiss(self, name: str) -> None:
        """Forget a guest's share and flow; its instances were dropped before."""
        self._qos.pop(name, None)
        flow = self._flows.pop(name, None)
        if flow is not None and flow.items:
            self._leave(flow)
        self._woken = [known for known in self._woken if known is not flow]
        self._flow_of = {guest: known for guest, known in self._flow_of.items() if known is not flow}
        self._scheduler.weights_changed(self._most_weight())

    def set_qos(self, name: str, qos: Qos, now_ns: int) -> None:
        """Set a guest's share and limits from now on."""
        self._qos[name] = qos
        self._scheduler.weights_changed(self._most_weight())
        flow = self._flow(name)
        waiting = bool(flow.items)
        if waiting:
            self._leave(flow)
        flow.set_qos(qos, now_ns)
        if waiting:
            self._wake(flow)

    def qos(self, name: str) -> Qos:
        """Return a guest's share and limits as they are now."""
        return self._qos.get(name, DEFAULT_QOS)

    def flow(self, name: str) -> Flow[Q] | None:
        """Return a guest's flow, to look at; None before the guest was enrolled."""
        return self._flows.get(name)

    # --- items

    def __len__(self) -> int:
        """How many wait."""
        return len(self._returned) + sum([len(flow.items) for flow in self._flows.values()])

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._eligible or self._returned or self._throttled or self._full)

    def entry(self, guest: int) -> Flow[Q]:
        """Return where requests of this guest instance go in; one that nobody enrolled has a flow of its own."""
        flow = self._flow_of.get(guest)
        if flow is None:
            flow = self._flow_of[guest] = self._flow(_anonymous(guest))
        return flow

    def push_front(self, items: Sequence[Q]) -> None:
        """Put items back that were taken before: they are paid for, and go first."""
        self._returned.extendleft(reversed(items))

    def arrived(self, now_ns: int) -> None:
        """Say when what was pushed since the last time has arrived; once in a step."""
        self._scheduler.arrived(now_ns)

    def window(self, now_ns: int) -> int:
        """`depth` while guests compete whose requests have an order of their own; else shares see to it."""
        if not self.depth or self.kind in BY_WEIGHT:
            return UNLIMITED
        competing = self._eligible > 1 or now_ns - self._competed_ns < COMPETITION_NS
        return self.depth if competing else UNLIMITED

    def take(self, most: int, now_ns: int) -> list[Q]:
        """Take up to `most` items, those that are served next; fewer where something holds the others back."""
        returned = self._returned
        taken = [returned.popleft() for _ in range(min(most, len(returned)))] if returned else []
        self._share = self._share_of_weight()
        if self._throttled or self._full:
            self._release(now_ns)
        if self._woken:
            self._hold_back()
        self._scheduler.arrived(now_ns)
        while self._eligible and len(taken) < most:
            self._turn(most - len(taken), now_ns, taken)
        return taken

    def ready_ns(self) -> int | None:
        """When the first limit lets go, None if none holds anything back."""
        return min(self._throttled.values()) if self._throttled else None

    def drop(self, guest: int) -> list[Q]:
        """Take out all items of a guest instance, which will push no more, and return them."""
        flow = self._flow_of.pop(guest, None)
        if flow is None:
            return []
        dropped = [item for item in self._returned if item.guest == guest]
        if dropped:
            self._returned = deque(item for item in self._returned if item.guest != guest)
            flow.in_flight -= len(dropped)
        mine = [item for item in flow.items if item.guest == guest]
        if mine:
            self._leave(flow)
            flow.items = deque(item for item in flow.items if item.guest != guest)
            flow.forget_arrivals()  # also where the scheduler did not know the flow just now
            if flow.items:
                self._wake(flow)
        if flow.name == _anonymous(guest):
            del self._flows[flow.name]
        return dropped + mine

    # --- inside

    def _turn(self, most: int, now_ns: int, taken: list[Q]) -> None:
        """Serve the flow that is next."""
        scheduler, already = self._scheduler, len(taken)
        flow, count, budget = scheduler.pick(now_ns)
        room = self._room(flow) if self._share else UNLIMITED
        cost = flow.serve(min(count, room, most), budget, now_ns, taken)
        served = len(taken) - already
        until_ns = flow.ready_ns(now_ns) if flow.limited and flow.items else now_ns
        stays = served < room and until_ns == now_ns and bool(flow.items)
        scheduler.served(flow, served, cost, stays, now_ns)
        if not stays:
            self._eligible -= 1
            if until_ns > now_ns:
                flow.throttled += 1
                self._throttled[flow] = until_ns
            elif flow.items:
                self._full.append(flow)
        if flow is not self._last:
            self._last, self._competed_ns = flow, now_ns

    def _share_of_weight(self) -> int:
        """What a flow of weight 1 may have in flight, as cost in units of `_FINE`; 0 while nobody competes."""
        if not self.depth or len(self._flows) < 2 or self.kind not in BY_WEIGHT:
            return 0
        active = [flow for flow in self._flows.values() if flow.items or flow.in_flight]
        if len(active) < 2:
            return 0
        largest = max([flow.head_cost() for flow in active if flow.items], default=MIN_COST)
        each = _FINE * max(self.depth * MIN_COST, LEAST_IN_FLIGHT * largest)
        weights = [flow.qos.weight for flow in active]
        if len(active) > MANY and max(weights) == min(weights):
            each *= 2
        bound = max((each + each // 4) // max(weights), _FINE * LEAST_IN_FLIGHT * largest // min(weights))
        return min(len(active) * each // sum(weights), bound)

    def _room(self, flow: Flow[Q]) -> int:
        """How many more items a flow may have in flight while guests compete, if all are as its first one."""
        return self._flow_share(flow) - flow.in_flight

    def _goes_on(self, flow: Flow[Q]) -> bool:
        """Whether enough of a flow's share is free for it to be served again."""
        share = self._flow_share(flow)
        return not self._share or PARTS * (share - flow.in_flight) >= share

    def _flow_share(self, flow: Flow[Q]) -> int:
        fine = flow.head_cost() * _FINE
        return max(1, (self._share * flow.qos.weight + fine // 2) // fine)

    def _flow(self, name: str) -> Flow[Q]:
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = Flow(name, self.bound, self._filled, self.qos(name))
        return flow

    def _most_weight(self) -> int:
        return max((qos.weight for qos in self._qos.values()), default=DEFAULT_QOS.weight)

    def _wake(self, flow: Flow[Q]) -> None:
        """A flow has something: it is eligible until its turn shows that a limit holds it back."""
        self._eligible += 1
        self._scheduler.wake(flow)

    def _filled(self, flow: Flow[Q]) -> None:
        """A flow that was empty has something."""
        self._woken.append(flow)
        self._wake(flow)

    def _hold_back(self) -> None:
        """Let those wait that have had their share already and come with more."""
        woken, self._woken = self._woken, []
        for flow in woken:
            if flow.items and not self._goes_on(flow):
                self._leave(flow)
                self._full.append(flow)

    def _leave(self, flow: Flow[Q]) -> None:
        """A flow that has something is to be changed."""
        if self._throttled.pop(flow, None) is not None:
            return
        if flow in self._full:
            self._full.remove(flow)
            return
        self._eligible -= 1
        self._scheduler.sleep(flow)

    def _release(self, now_ns: int) -> None:
        """Let the flows compete again that nothing holds back any more."""
        for flow in [flow for flow, until_ns in self._throttled.items() if until_ns <= now_ns]:
            del self._throttled[flow]
            self._wake(flow)
        full, self._full = self._full, []
        for flow in full:
            if self._goes_on(flow):
                self._wake(flow)
            else:
                self._full.append(flow)


def _anonymous(guest: int) -> str:
    return f"#{guest}"
