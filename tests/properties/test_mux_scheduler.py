"""Every scheduler against a model: order, bounds, no loss, no idling, no starvation, shares."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iovirt_dist.mux.drr import QUANTUM
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.platform.qos import Priority, Qos, SchedulerKind
from tests.unit.mux.items import Item

BOUND = 20
NAMES = ("a", "b", "c")
LENGTHS = st.sampled_from([0, 512, 4096, 65536, 1 << 20])
SHARES = st.builds(
    Qos,
    weight=st.integers(1, 1000),
    priority=st.sampled_from(Priority),
    latency_ns=st.integers(1_000, 10**9),
    iops=st.sampled_from([0, 0, 0, 10, 1000]),
    bandwidth=st.sampled_from([0, 0, 0, 1 << 16, 1 << 24]),
    burst_ns=st.integers(1_000_000, 60_000_000_000),
)


class QueueMachine(RuleBasedStateMachine):
    """Pushes, takes, completes, returns and drops in any order; the model is one plain queue a guest instance."""

    kind = SchedulerKind.DRR

    @initialize(depth=st.sampled_from([0, 1, 8]), shares=st.lists(SHARES, min_size=3, max_size=3))
    def begin(self, depth: int, shares: list[Qos]) -> None:
        """A queue with guests of these shares; the last two instances are one guest's."""
        self.qos = dict(zip(NAMES, shares, strict=True))
        self.queue: MultiQueue[Item] = MultiQueue(self.kind, BOUND, depth, self.qos)
        self.depth = depth
        self.now_ns = 0
        self.number = 0
        self.name_of: dict[int, str] = {}
        self.waiting: dict[int, deque[Item]] = {}
        self.returned: deque[Item] = deque()
        self.in_flight: list[Item] = []
        for instance, name in enumerate((*NAMES, "c"), 1):
            self._enroll(instance, name)

    def _enroll(self, instance: int, name: str) -> None:
        self.name_of[instance] = name
        self.waiting[instance] = deque()
        self.queue.enroll(instance, name)

    def _flow_waiting(self, name: str) -> int:
        return sum(len(waiting) for instance, waiting in self.waiting.items() if self.name_of[instance] == name)

    @rule(instance=st.integers(1, 4), lengths=st.lists(LENGTHS, min_size=1, max_size=30), many=st.booleans())
    def push(self, instance: int, lengths: list[int], many: bool) -> None:
        """As much as the guest's bound lets in, and no less."""
        items = [Item(instance, self.number + at, length) for at, length in enumerate(lengths)]
        self.number += len(items)
        room = BOUND - self._flow_waiting(self.name_of[instance])
        entry = self.queue.entry(instance)
        accepted = entry.push_many(items) if many else sum([entry.push(item) for item in items])
        assert accepted == min(room, len(items))
        self.waiting[instance] += items[:accepted]

    @rule(most=st.integers(0, 40), wait_ns=st.integers(0, 200_000_000))
    def take(self, most: int, wait_ns: int) -> None:
        """Each guest's in order; all that was asked for, unless a limit, a share or nothing is there."""
        self.now_ns += wait_ns
        before = {name: self._flow_waiting(name) for name in NAMES}
        taken = self.queue.take(most, self.now_ns)
        assert len(taken) <= most
        for item in taken:
            expected = self.returned if self.returned else self.waiting[item.guest]
            assert expected.popleft() == item
        self.in_flight += taken
        unlimited = [name for name in NAMES if not self.qos[name].iops and not self.qos[name].bandwidth]
        if len(taken) < most and self.depth == 0:
            assert all(self._flow_waiting(name) == 0 for name in unlimited), "it idles while something could go"
        if len(taken) < most:
            for name in unlimited:
                busy = any(self.name_of[item.guest] == name for item in self.in_flight)
                assert busy or not before[name], "a guest with nothing in flight got nothing"

    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Some of what is in flight ends."""
        for _ in range(data.draw(st.integers(0, len(self.in_flight)))):
            item = self.in_flight.pop(0)
            self.queue.entry(item.guest).in_flight -= 1

    @rule(count=st.integers(0, 10))
    def give_back(self, count: int) -> None:
        """The last that were taken did not fit."""
        at = max(0, len(self.in_flight) - count)
        back, self.in_flight = self.in_flight[at:], self.in_flight[:at]
        self.queue.push_front(back)
        self.returned.extendleft(reversed(back))

    @rule(instance=st.integers(1, 4))
    def drop(self, instance: int) -> None:
        """A guest's machine is rebuilt; what is in flight ends at once."""
        mine = [item for item in self.returned if item.guest == instance] + list(self.waiting[instance])
        for item in [item for item in self.in_flight if item.guest == instance]:
            self.in_flight.remove(item)
            self.queue.entry(instance).in_flight -= 1
        assert self.queue.drop(instance) == mine
        self.returned = deque(item for item in self.returned if item.guest != instance)
        self._enroll(instance, self.name_of[instance])

    @rule(name=st.sampled_from(NAMES), qos=SHARES)
    def change(self, name: str, qos: Qos) -> None:
        """Somebody uses ``iovirt set``."""
        self.qos[name] = qos
        self.queue.set_qos(name, qos, self.now_ns)
        assert self.queue.qos(name) == qos

    @invariant()
    def counts_agree(self) -> None:
        """How many wait, how many are in flight, and when there will be more."""
        if not hasattr(self, "queue"):
            return
        waiting = sum(map(len, self.waiting.values())) + len(self.returned)
        assert len(self.queue) == waiting
        assert bool(self.queue) == (waiting > 0)
        for instance, name in self.name_of.items():
            flow = self.queue.flow(name)
            out = [item for item in (*self.in_flight, *self.returned) if self.name_of[item.guest] == name]
            assert flow is not None
            assert flow.in_flight == len(out), instance

    def teardown(self) -> None:
        """Everything comes out in the end: nobody starves, and the queue always says when to come back."""
        if not hasattr(self, "queue"):
            return
        for _ in range(100_000):
            for item in self.in_flight:
                self.queue.entry(item.guest).in_flight -= 1
            self.in_flight = []
            if not self.queue:
                break
            self.take(40, 0)
            if not self.in_flight:
                ready_ns = self.queue.ready_ns()
                assert ready_ns is not None, "something waits for nothing"
                self.now_ns = max(self.now_ns, ready_ns)
        assert not self.queue


def _machine(kind: SchedulerKind) -> type:
    machine = type(f"{kind.name}Machine", (QueueMachine,), {"kind": kind})
    case: type = machine.TestCase  # type: ignore[attr-defined]  # hypothesis makes it for each subclass
    case.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)  # type: ignore[attr-defined]  # as above
    return case


TestFifo = _machine(SchedulerKind.FIFO)
TestDrr = _machine(SchedulerKind.DRR)
TestWfq = _machine(SchedulerKind.WFQ)
TestPriority = _machine(SchedulerKind.PRIORITY)
TestDeadline = _machine(SchedulerKind.DEADLINE)


@pytest.mark.parametrize("kind", [SchedulerKind.DRR, SchedulerKind.WFQ])
@given(
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    sizes=st.lists(st.sampled_from([512, 4096, 8192, 65536]), min_size=5, max_size=5),
    mosts=st.lists(st.integers(1, 64), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_backlogged_guests_share_bytes_by_weight(
    kind: SchedulerKind, weights: list[int], sizes: list[int], mosts: list[int]
) -> None:
    """Whatever their requests' sizes and however small the batches: shares of cost are within a turn and a request."""
    names = [f"g{at}" for at in range(len(weights))]
    queue: MultiQueue[Item] = MultiQueue(
        kind, bound=64, depth=0, qos={name: Qos(weight=weight) for name, weight in zip(names, weights, strict=True)}
    )
    cost = dict.fromkeys(names, 0)
    for guest, name in enumerate(names):
        queue.enroll(guest, name)
    for step in range(400):
        for guest in range(len(names)):
            entry = queue.entry(guest)
            entry.push_many([Item(guest, 0, sizes[guest])] * (64 - len(queue.flow(names[guest]).items)))  # type: ignore[union-attr]  # it is enrolled
        for item in queue.take(mosts[step % len(mosts)], 0):
            cost[names[item.guest]] += max(4096, item.length)

    total, most = sum(cost.values()), max(weights)
    for name, weight, size in zip(names, weights, sizes, strict=False):
        fair = total * weight / sum(weights)
        assert abs(cost[name] - fair) <= QUANTUM + 4 * (32768 * most + 65536), (name, size)
