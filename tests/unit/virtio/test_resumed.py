"""Split rings that go on after whoever served them is gone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.resumed import ResumedSplitDevice
from iovirt_dist.virtio.ring import RingError, RingSetup, driver_ring, ring_setup

BUFFER = 0x4000
FEATURES = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX)


class _Log:
    """Keeps heads in a list; notes the order of its steps."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.steps: list[tuple[str, int | tuple[int, ...]]] = []

    def resume(self, used_index: int, size: int) -> list[int]:
        """Return what is in flight."""
        self.steps.append(("resume", used_index))
        return list(self.heads)

    def taken(self, heads: Sequence[int]) -> None:
        """Note them."""
        self.heads += heads
        self.steps.append(("taken", tuple(heads)))

    def batch(self, heads: Sequence[int]) -> None:
        """Note the step."""
        self.steps.append(("batch", tuple(heads)))

    def published(self, used_index: int, heads: Sequence[int]) -> None:
        """They are in flight no more."""
        self.heads = [head for head in self.heads if head not in heads]
        self.steps.append(("published", used_index))

    def clear(self, used_index: int) -> None:
        """Nothing is in flight."""
        self.heads.clear()


class _Bench:
    """A driver, its ring, and a log that outlives the device's side."""

    def __init__(self, size: int = 8) -> None:
        self.memory = ByteMemory(0x8000)
        self.setup: RingSetup = ring_setup(0x1000, size, FEATURES)
        self.driver = driver_ring(self.memory, self.setup)
        self.log = _Log()
        self.device = self.serve()

    def serve(self) -> ResumedSplitDevice:
        """Return a new device's side."""
        return ResumedSplitDevice(self.memory, self.setup, self.log)

    def add(self, count: int) -> list[int]:
        """Make requests available; returns their numbers."""
        return [self.driver.add([(BUFFER + 16 * at, 16)], []) for at in range(count)]

    def taken(self) -> list[int]:
        """Take what there is."""
        return [chain.head for chain in self.device.take(64)]


def test_resumed_takes_what_was_in_flight_first_and_then_what_is_new() -> None:
    """No request is skipped, and none is taken twice."""
    bench = _Bench()
    first = bench.add(3)
    bench.taken()
    bench.device = bench.serve()
    second = bench.add(2)
    assert bench.taken() == first + second


def test_resumed_goes_on_at_the_used_index() -> None:
    """What was used before is not offered again, and used elements follow each other."""
    bench = _Bench()
    first = bench.add(3)
    bench.taken()
    bench.device.put(first[1], 0)
    bench.device.publish()
    bench.device = bench.serve()
    assert bench.taken() == [first[0], first[2]]
    bench.device.put(first[2], 0)
    bench.device.put(first[0], 0)
    bench.device.publish()
    assert bench.driver.take_used() == [(first[1], 0), (first[2], 0), (first[0], 0)]


def test_resumed_logs_a_batch_around_the_used_ring() -> None:
    """The order by which a log can tell whether a batch was published."""
    bench = _Bench()
    heads = bench.add(2)
    bench.taken()
    for head in heads:
        bench.device.put(head, 0)
    bench.device.publish()
    assert bench.log.steps == [("resume", 0), ("taken", tuple(heads)), ("batch", tuple(heads)), ("published", 2)]


def test_resumed_indices_run_over_sixteen_bits() -> None:
    """Where a ring goes on may be anywhere in their range."""
    bench = _Bench()
    for _ in range(0xFFF8 // 8):
        heads = bench.add(8)
        bench.taken()
        for head in heads:
            bench.device.put(head, 0)
        bench.device.publish()
        bench.driver.take_used()
    heads = bench.add(8)
    bench.taken()
    bench.device = bench.serve()
    assert bench.taken() == heads
    for head in heads:
        bench.device.put(head, 0)
    bench.device.publish()
    assert bench.driver.take_used() == [(head, 0) for head in heads]


@pytest.mark.parametrize(("heads", "reason"), [([8], "head-range"), ([0, 0], "head-in-flight")])
def test_resumed_refuses_a_log_that_lies(heads: list[int], reason: str) -> None:
    """A log lies in memory that others can write."""
    bench = _Bench()
    bench.add(1)
    bench.log.heads = heads
    bench.device = bench.serve()
    with pytest.raises(RingError) as error:
        bench.taken()
    assert error.value.reason == reason


def test_resumed_remap_keeps_what_is_in_flight() -> None:
    """Guest memory may be mapped anew while requests are on their way."""
    bench = _Bench()
    first = bench.add(2)
    bench.taken()
    bench.device.remap()
    second = bench.add(1)
    assert bench.taken() == second
    for head in [*first, *second]:
        bench.device.put(head, 0)
    bench.device.publish()
    assert len(bench.driver.take_used()) == 3


def test_resumed_asks_for_notifications_though_there_is_nothing_to_take() -> None:
    """The one before it had asked for none while it was busy; the driver would never notify again."""
    bench = _Bench()
    bench.add(4)
    bench.driver.notify_needed()
    for chain in bench.device.take(64, ask=False):
        bench.device.put(chain.head, 0)
    bench.device.publish()
    bench.device = bench.serve()

    assert bench.taken() == []
    bench.add(1)

    assert bench.driver.notify_needed()
