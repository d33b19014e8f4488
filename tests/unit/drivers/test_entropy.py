"""The host-side entropy driver."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.entropy import RETRIES, RETRY_NS, EntropyDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.commands import Command, Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller

SOURCE = UnitIdentity(0, 1, False, "entropy")
POWER_ON_NS = 1000


class Device:
    """An entropy device that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Status, bytes, int]] = []

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep it."""
        self.told.append((tag, status, bytes(data), now_ns))


class Bench:
    """A driver between a device and a controller."""

    def __init__(self, bound: int = 16) -> None:
        self.pair = QueuePair("rng0", MultiQueue(bound=bound))
        self.pair.use("")
        self.controller = Controller(self.pair, {"": SOURCE})
        self.controller.open()
        self.device = Device()
        self.driver = EntropyDriver(self.pair, "", guest=5, queue=6)
        self.driver.attach(self.device, POWER_ON_NS)

    def answer(self, status: Status = Status.OK, data: bytes = b"") -> None:
        """Complete the oldest command."""
        self.controller.take()
        self.controller.complete(self.controller.commands[0], status, data)


def test_request_becomes_a_command_and_its_bytes_reach_the_device() -> None:
    """Fewer bytes than asked for are success."""
    bench = Bench()
    bench.controller.now_ns = 5000

    bench.driver.request(77, 4)
    bench.controller.take()
    commands = list(bench.controller.commands)
    bench.answer(data=b"abc")

    assert commands == [Command(RequestId(5, 6, 1).pack(), Opcode.ENTROPY_GET, 0, 0, 4)]
    assert bench.device.told == [(77, Status.OK, b"abc", 5000 - POWER_ON_NS)]
    assert (bench.driver.requests, bench.driver.bytes_in, bench.driver.errors) == (1, 3, 0)


@pytest.mark.parametrize("data", [b"", b"abcde"])
def test_controller_that_gives_nothing_or_too_much_has_failed(data: bytes) -> None:
    """It is not trusted with lengths."""
    bench = Bench()
    bench.driver.request(1, 4)

    bench.answer(data=data)

    assert bench.device.told == [(1, Status.MEDIUM_ERROR, b"", -POWER_ON_NS)]
    assert bench.driver.errors == 1


def test_request_that_finds_no_room_is_asked_again_a_few_times() -> None:
    """Then the device hears of it."""
    bench = Bench()
    bench.driver.request(1, 4)

    for _ in range(RETRIES):
        bench.answer(Status.QUEUE_FULL)
    told_before = list(bench.device.told)
    bench.answer(Status.ABORTED)

    assert told_before == []
    assert bench.device.told == [(1, Status.ABORTED, b"", -POWER_ON_NS)]
    assert bench.driver.retries == RETRIES


def test_request_that_succeeds_later_may_be_retried_as_often_again() -> None:
    """Tags come again."""
    bench = Bench()

    for _ in range(2):
        bench.driver.request(1, 4)
        for _ in range(RETRIES):
            bench.answer(Status.QUEUE_FULL)
        bench.answer(data=b"abcd")

    assert [status for _, status, _, _ in bench.device.told] == [Status.OK, Status.OK]


def test_error_of_the_source_is_told_at_once() -> None:
    """Asking again would not help."""
    bench = Bench()
    bench.driver.request(1, 4)

    bench.answer(Status.MEDIUM_ERROR)

    assert bench.device.told == [(1, Status.MEDIUM_ERROR, b"", -POWER_ON_NS)]


def test_request_beyond_the_queue_is_told_after_the_step() -> None:
    """Never from inside of `request`; whether room comes later, the retries find out."""
    bench = Bench(bound=1)
    bench.driver.request(1, 4)

    bench.driver.request(2, 4)
    told_at_once = list(bench.device.told)
    bench.pair.settle(9000)

    assert told_at_once == []
    assert bench.device.told == [(2, Status.QUEUE_FULL, b"", 9000 - POWER_ON_NS)]


def test_bytes_for_a_machine_that_is_down_are_dropped() -> None:
    """Nobody is there."""
    bench = Bench()
    bench.driver.request(1, 4)

    bench.driver.attach(None, 0)
    bench.answer(data=b"abcd")

    assert bench.device.told == []


class PatientDevice(Device):
    """A device that asks again when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def ask_again(self) -> None:
        """Count."""
        self.asked += 1


def test_device_that_waits_for_what_failed_asks_again_after_a_while() -> None:
    """Once for all that failed meanwhile, and no more after it is gone."""
    bench = Bench()
    device = PatientDevice()
    bench.driver.attach(device, POWER_ON_NS)
    bench.driver.request(1, 4)
    bench.driver.request(2, 4)
    bench.answer(Status.MEDIUM_ERROR)
    bench.answer(Status.MEDIUM_ERROR)
    due_ns = bench.driver.retry_ns

    bench.driver.flush(RETRY_NS - 1)
    early = device.asked
    bench.driver.flush(RETRY_NS)
    bench.driver.flush(2 * RETRY_NS)

    assert due_ns == RETRY_NS
    assert (early, device.asked, bench.driver.retry_ns) == (0, 1, None)
