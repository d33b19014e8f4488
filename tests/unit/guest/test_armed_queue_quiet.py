"""An armed queue whose driver is outside this process: when it must notify, and when the queue looks by itself."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.armed_queue import QUIET_FROM, ArmedQueue
from iovirt_dist.guest.queue_home import MachineHome
from tests.unit.guest.armed_bench import LAYOUTS, Bench
from tests.unit.guest.queue_bench import DATA, SPLIT, QueueCompletion


class OutsideHome(MachineHome):
    """A home that interrupts the driver itself, as a gateway does."""

    interrupts = True


class OutsideBench(Bench):
    """A queue in such a home."""

    def __init__(self, features: int = SPLIT) -> None:
        super().__init__(features)
        self.queue = ArmedQueue(OutsideHome(self.memory), self.arm, self.counts)

    def offer(self, *numbers: int) -> bool:
        """Offer reads; returns whether the driver must notify."""
        for number in numbers:
            self.add_read(number)
        return self.driver.notify_needed()

    def heads(self, *, completed: int) -> list[int]:
        """Complete a request; the heads of those that leave in its wake."""
        left = self.complete(QueueCompletion(completed, 4096, 0), data=(bytes(4096),))
        return [request.head for outgoing in left for request in self.rung(outgoing).requests]


def test_driver_need_not_notify_while_enough_is_in_flight() -> None:
    """What it offers then leaves with the next completion, as one message."""
    bench = OutsideBench()
    assert bench.offer(*range(QUIET_FROM))
    [first] = bench.ring()

    needed = bench.offer(10, 11)

    assert not needed
    assert len(bench.heads(completed=first.requests[0].head)) == 2


@LAYOUTS
def test_driver_must_notify_of_each_request_while_few_are_in_flight(features: int) -> None:
    """They go one by one, at once."""
    bench = OutsideBench(features)

    for number in range(QUIET_FROM):
        assert bench.offer(number)
        assert len(bench.ring()[0].requests) == 1


@LAYOUTS
def test_driver_must_notify_again_when_few_are_left(features: int) -> None:
    """Else nobody would look at the ring when the last one has completed."""
    bench = OutsideBench(features)
    bench.offer(*range(QUIET_FROM))
    [rung] = bench.ring()

    assert bench.heads(completed=rung.requests[0].head) == []

    assert bench.offer(10)


@pytest.mark.parametrize("count", [1, QUIET_FROM, 3 * QUIET_FROM])
def test_driver_that_notifies_when_it_must_loses_no_request(count: int) -> None:
    """However many it keeps in flight."""
    bench = OutsideBench()
    in_flight: list[int] = []
    offered = done = 0
    while done < 200:
        for _ in range(count - len(in_flight)):
            bench.add_read(offered % 32)
            offered += 1
        if bench.driver.notify_needed():
            in_flight += [request.head for rung in bench.ring() for request in rung.requests]
        in_flight += bench.heads(completed=in_flight.pop(0))
        done += len(bench.driver.take_used())


def test_rooms_to_receive_in_are_told_of_at_once() -> None:
    """They may stay empty for long, and more of them may be wanted before."""
    bench = OutsideBench()
    for number in range(2 * QUIET_FROM):
        bench.add([], [(DATA + 0x1000 * number, 64)])
    bench.queue.gather(1)
    bench.driver.notify_needed()

    bench.add([], [(DATA, 64)])

    assert bench.driver.notify_needed()


def test_queue_at_rest_takes_nothing_with_completions() -> None:
    """It is about to be stopped; what it has not taken goes back to its driver."""
    bench = OutsideBench()
    bench.offer(*range(QUIET_FROM))
    [rung] = bench.ring()
    bench.offer(10)

    bench.queue.rest()

    assert bench.heads(completed=rung.requests[0].head) == []


def test_driver_in_this_process_notifies_of_everything() -> None:
    """A notification is a store of the guest's code, and every store is counted."""
    bench = Bench()
    for number in range(2 * QUIET_FROM):
        bench.add_read(number)
    bench.ring()
    bench.driver.notify_needed()

    bench.add_read(20)

    assert bench.driver.notify_needed()
