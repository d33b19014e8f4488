"""All armed queues of a guest: which is meant."""

from __future__ import annotations

import msgspec
import pytest

from iovirt_dist.guest.queues import MAX_QUEUES, ArmedQueues, NoMemory
from iovirt_dist.virtio.memory import MemoryRangeError
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue, QueueBroken
from tests.unit.guest.queue_bench import DATA, NOTIFY, DriverBench, QueueCompletion


class Bench(DriverBench):
    """A driver's ring and the armed queues of its guest."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = ArmedQueues(self.memory)

    def changed(self, **fields: int) -> ArmQueue:
        """The message that arms, with other values."""
        return msgspec.structs.replace(self.arm, **fields)


def test_queue_is_found_by_the_register_and_the_value() -> None:
    """And by nothing else."""
    bench = Bench()

    bench.queues.arm(bench.arm)

    assert list(bench.queues.by_doorbell) == [(NOTIFY, 1)]


def test_arming_again_replaces_the_queue_and_drops_what_was_in_flight() -> None:
    """Its completions are of an earlier life then."""
    bench = Bench()
    bench.queues.arm(bench.arm)
    head = bench.add_read(0)
    bench.queues.by_doorbell[NOTIFY, 1].gather(1)

    bench.queues.arm(bench.changed(generation=8, notify=NOTIFY + 0x1000))
    bench.queues.complete(bench.completions(QueueCompletion(head, 0, 0)), ())

    assert list(bench.queues.by_doorbell) == [(NOTIFY + 0x1000, 1)]
    assert (bench.queues.counts.stale, bench.queues.counts.unknown) == (1, 0)


def test_two_queues_of_one_register_leave_the_other_when_one_is_disarmed() -> None:
    """The same value at the same address is the hypervisor's mistake; the last one has it."""
    bench = Bench()
    bench.queues.arm(bench.arm)
    bench.queues.arm(bench.changed(device=5))
    last = bench.queues.by_doorbell[NOTIFY, 1]

    bench.queues.disarm(DisarmQueue(2, 1, 7))

    assert bench.queues.by_doorbell == {(NOTIFY, 1): last}
    assert last.arm.device == 5


@pytest.mark.parametrize("message", [DisarmQueue(2, 1, 6), DisarmQueue(2, 0, 7), DisarmQueue(1, 1, 7)])
def test_disarming_of_another_queue_or_life_is_counted(message: DisarmQueue) -> None:
    """And disarms nothing."""
    bench = Bench()
    bench.queues.arm(bench.arm)

    bench.queues.disarm(message)

    assert list(bench.queues.by_doorbell) == [(NOTIFY, 1)]
    assert bench.queues.counts.stale == 1


def test_completions_of_no_queue_are_counted() -> None:
    """Nothing is armed."""
    bench = Bench()

    assert bench.queues.complete(Completions(2, 1, 7, True, b"\0" * 8), ()) == []
    assert bench.queues.counts.stale == 1


@pytest.mark.parametrize("fields", [{"descriptors": 1 << 40}, {"driver_area": 0x1001}, {"size": 7}])
def test_ring_that_cannot_be_is_broken_when_it_is_armed(fields: dict[str, int]) -> None:
    """And stores to its register are no doorbells."""
    bench = Bench()

    (broken,) = bench.queues.arm(bench.changed(**fields))

    assert isinstance(broken.body, QueueBroken)
    assert broken.body.generation == 7
    assert bench.queues.by_doorbell == {}
    assert bench.queues.counts.broken == 1


def test_queues_are_bounded() -> None:
    """More are counted and not armed; one that is armed already may be armed again."""
    bench = Bench()
    for queue in range(MAX_QUEUES + 3):
        bench.queues.arm(bench.changed(queue=queue))

    bench.queues.arm(bench.changed(queue=0, generation=8))

    assert len(bench.queues.by_doorbell) == MAX_QUEUES
    assert bench.queues.counts.malformed == 3


def test_clear_forgets_all() -> None:
    """Nothing is in flight then."""
    bench = Bench()
    bench.queues.arm(bench.arm)
    bench.add_read(0)
    bench.queues.by_doorbell[NOTIFY, 1].gather(1)
    before = bench.queues.in_flight

    bench.queues.clear()

    assert (before, bench.queues.in_flight, bench.queues.by_doorbell) == (1, 0, {})


def test_rooms_to_receive_in_are_not_awaited() -> None:
    """They may stay for ever; a read is."""
    bench = Bench()
    bench.queues.arm(bench.arm)
    bench.add([], [(DATA, 64)])
    bench.queues.by_doorbell[NOTIFY, 1].gather(1)
    receiving = bench.queues.awaited
    bench.add_read(1)
    bench.queues.by_doorbell[NOTIFY, 1].gather(1)

    assert (receiving, bench.queues.awaited) == (False, True)


def test_guest_without_memory_has_broken_queues_only() -> None:
    """No range of it is RAM."""
    queues = ArmedQueues(NoMemory())

    (broken,) = queues.arm(Bench().arm)

    assert isinstance(broken.body, QueueBroken)
    assert broken.body.reason == "ring-memory"
    with pytest.raises(MemoryRangeError):
        NoMemory().read(0, 0)
    with pytest.raises(MemoryRangeError):
        NoMemory().write(0, b"")
