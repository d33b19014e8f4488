"""The host-side disk driver."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Command, Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller

IDENTITY = UnitIdentity(1 << 20, 512, True, "SERIAL")
POWER_ON_NS = 1000


class Device:
    """A virtual disk that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Status, bytes, int]] = []

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Keep it."""
        self.told.append((tag, status, bytes(data), now_ns))


class Bench:
    """A driver between a device and a controller."""

    def __init__(self, bound: int = 16) -> None:
        self.pair = QueuePair("disk0", bound)
        self.pair.use("root")
        self.controller = Controller(self.pair, {"root": IDENTITY})
        self.controller.open()
        self.device = Device()
        self.driver = DiskDriver(self.pair, "root", IDENTITY, guest=5, queue=2)
        self.driver.attach(self.device, POWER_ON_NS)


def test_disk_is_what_the_controller_identified() -> None:
    """Size, blocks, protection and serial."""
    driver = Bench().driver

    assert UnitIdentity(driver.size_bytes, driver.block_bytes, driver.read_only, driver.serial) == IDENTITY


def test_disk_request_becomes_a_command_under_an_id_of_its_own() -> None:
    """Guest, queue and a count that never repeats; the device's tag stays here."""
    bench = Bench()

    bench.driver.submit(DiskRequest(77, Opcode.READ, 1024, 512))
    bench.driver.submit(DiskRequest(77, Opcode.WRITE, 512, 512, b"w" * 512))
    bench.driver.submit(DiskRequest(78, Opcode.FLUSH))
    sizes = bench.controller.take()

    assert sizes == [3]
    assert bench.controller.commands == [
        Command(RequestId(5, 2, 1).pack(), Opcode.READ, 0, 1024, 512),
        Command(RequestId(5, 2, 2).pack(), Opcode.WRITE, 0, 512, 512),
        Command(RequestId(5, 2, 3).pack(), Opcode.FLUSH, 0, 0, 0),
    ]
    assert bench.controller.data[RequestId(5, 2, 2).pack()] == b"w" * 512


def test_disk_completion_reaches_the_device_with_its_tag_and_the_machines_time() -> None:
    """The controller's clock is the host's; the device's began at power-on."""
    bench = Bench()
    bench.driver.submit(DiskRequest(77, Opcode.READ, 0, 512))
    bench.controller.take()
    bench.controller.now_ns = 5000

    bench.controller.complete(bench.controller.commands[0], data=b"r" * 512)

    assert bench.device.told == [(77, Status.OK, b"r" * 512, 5000 - POWER_ON_NS)]
    assert (bench.driver.requests, bench.driver.bytes_read, bench.driver.bytes_written) == (1, 512, 0)


def test_disk_request_beyond_the_queue_fails_later_with_the_right_time() -> None:
    """Never from inside of `submit`: the device is in the middle of its own step then."""
    bench = Bench(bound=1)
    bench.driver.submit(DiskRequest(1, Opcode.READ, 0, 512))

    bench.driver.submit(DiskRequest(2, Opcode.READ, 0, 512))
    told_at_once = list(bench.device.told)
    bench.pair.settle(9000)

    assert told_at_once == []
    assert bench.device.told == [(2, Status.QUEUE_FULL, b"", 9000 - POWER_ON_NS)]


def test_disk_completion_after_the_machine_went_down_is_dropped() -> None:
    """Nobody is there."""
    bench = Bench()
    bench.driver.submit(DiskRequest(1, Opcode.READ, 0, 512))
    bench.controller.take()

    bench.driver.attach(None, 0)
    bench.controller.complete(bench.controller.commands[0], Status.MEDIUM_ERROR)

    assert bench.device.told == []


@pytest.mark.parametrize("data", [b"", b"r" * 511, b"r" * 513])
def test_read_that_brings_another_number_of_bytes_has_failed(data: bytes) -> None:
    """A controller is not trusted with lengths."""
    bench = Bench()
    bench.driver.submit(DiskRequest(1, Opcode.READ, 0, 512))
    bench.controller.take()

    bench.controller.complete(bench.controller.commands[0], data=data)

    assert bench.device.told == [(1, Status.MEDIUM_ERROR, b"", -POWER_ON_NS)]


def test_write_that_no_message_can_carry_fails_and_holds_nobody_up() -> None:
    """Behind it the queue goes on."""
    bench = Bench()
    bench.driver.submit(DiskRequest(1, Opcode.WRITE, 0, 0, bytes(MAX_DATA_BYTES + 512)))
    bench.driver.submit(DiskRequest(2, Opcode.READ, 0, 512))

    sizes = bench.controller.take()
    bench.pair.settle(0)

    assert sizes == [1]
    assert bench.device.told == [(1, Status.BAD_LENGTH, b"", -POWER_ON_NS)]
