"""The host-side disk driver."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Command, Completion, Opcode, Status, UnitIdentity
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


class BatchDevice(Device):
    """One that takes good outcomes by the batch, too."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[list[int], list[int], bytes, int]] = []

    def succeed_many(self, tags: Sequence[int], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int) -> None:
        """Keep it."""
        self.batches.append((list(tags), list(lengths), b"".join(frames), now_ns))


class Bench:
    """A driver between a device and a controller."""

    def __init__(self, bound: int = 16, device: Device | None = None) -> None:
        self.pair = QueuePair("disk0", MultiQueue(bound=bound))
        self.pair.use("root")
        self.controller = Controller(self.pair, {"root": IDENTITY})
        self.controller.open()
        self.device = device or Device()
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


def batch_bench() -> tuple[Bench, BatchDevice, list[Command]]:
    """Two reads and a flush at the controller, submitted as a batch."""
    device = BatchDevice()
    bench = Bench(device=device)
    bench.driver.submit_many(
        [DiskRequest(7, Opcode.READ, 0, 512), DiskRequest(8, Opcode.READ, 512, 512), DiskRequest(9, Opcode.FLUSH)]
    )
    bench.controller.take()
    return bench, device, list(bench.controller.commands)


def test_disk_batch_becomes_the_commands_that_its_requests_would() -> None:
    """In their order, under ids of their own; what does not fit ends with QUEUE_FULL."""
    bench, one_by_one = Bench(bound=2), Bench(bound=2)
    requests = [DiskRequest(tag, Opcode.WRITE, 512 * tag, 512, b"w" * 512) for tag in range(3)]

    bench.driver.submit_many(requests)
    for request in requests:
        one_by_one.driver.submit(request)
    for side in (bench, one_by_one):
        side.pair.settle(POWER_ON_NS)
        side.controller.take()

    assert bench.controller.commands == one_by_one.controller.commands
    assert bench.device.told == one_by_one.device.told == [(2, Status.QUEUE_FULL, b"", 0)]
    assert (bench.driver.requests, bench.driver.bytes_written) == (3, 1536)


def test_good_outcomes_of_a_batch_come_as_one() -> None:
    """With the frames as they came, in the machine's time."""
    bench, device, commands = batch_bench()
    bench.controller.now_ns = POWER_ON_NS + 5

    bench.controller.send(
        [Completion(commands[1].id, Status.OK, 512), Completion(commands[0].id, Status.OK, 512)],
        [b"b" * 512 + b"a" * 512],
    )

    assert device.batches == [([8, 7], [512, 512], b"b" * 512 + b"a" * 512, 5)]
    assert device.told == []
    assert (bench.driver.bytes_read, bench.pair.completed, bench.pair.in_flight) == (1024, 3, 1)


@pytest.mark.parametrize(
    ("statuses", "lengths", "told"),
    [
        ([Status.OK, Status.MEDIUM_ERROR], [512, 0], [Status.OK, Status.MEDIUM_ERROR]),
        ([Status.OK, Status.OK], [512, 256], [Status.OK, Status.MEDIUM_ERROR]),
        ([Status.OK, Status.OK], [1024, 512], [Status.MEDIUM_ERROR, Status.OK]),
    ],
)
def test_batch_with_a_bad_outcome_is_told_one_by_one(
    statuses: list[Status], lengths: list[int], told: list[Status]
) -> None:
    """A failure, or a read that brings what it was not asked for."""
    bench, device, commands = batch_bench()
    entries = zip(commands, statuses, lengths, strict=False)

    bench.controller.send([Completion(c.id, status, length) for c, status, length in entries], [bytes(sum(lengths))])

    assert device.batches == []
    assert [(tag, status) for tag, status, _, _ in device.told] == list(zip((7, 8), told, strict=True))


def test_id_twice_in_a_batch_ends_its_request_once() -> None:
    """The second means nothing."""
    bench, device, commands = batch_bench()

    bench.controller.send([Completion(commands[0].id, Status.OK, 512)] * 2, [bytes(1024)])

    assert [tag for tag, _, _, _ in device.told] == [7]


def test_batch_of_a_device_that_was_detached_is_told_to_nobody() -> None:
    """Its machine is gone."""
    bench, device, commands = batch_bench()

    bench.driver.attach(None, 0)
    bench.controller.send([Completion(commands[2].id, Status.OK)])

    assert device.told == []
    assert device.batches == []


class GrowingDevice(Device):
    """A device that takes a larger disk."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def grown(self, size_bytes: int) -> None:
        """Note it."""
        self.sizes.append(size_bytes)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_disk_that_grew_is_told_to_a_device_that_can_take_it(factor: int) -> None:
    """Once."""
    device = GrowingDevice()
    bench = Bench(device=device)
    bench.controller.units["root"] = IDENTITY._replace(size_bytes=factor * IDENTITY.size_bytes)

    bench.pair.ask_all_again()
    bench.controller.take()
    bench.driver.follow_size()
    bench.driver.follow_size()

    assert bench.driver.size_bytes == factor * IDENTITY.size_bytes
    assert device.sizes == [factor * IDENTITY.size_bytes][: factor - 1]


def test_disk_that_grew_stays_as_it_was_for_a_device_that_cannot_take_it() -> None:
    """An ATA disk was asked for its size by the guest's firmware."""
    bench = Bench()
    bench.controller.units["root"] = IDENTITY._replace(size_bytes=2 * IDENTITY.size_bytes)

    bench.pair.ask_all_again()
    bench.controller.take()
    bench.driver.follow_size()

    assert bench.driver.size_bytes == IDENTITY.size_bytes


def test_disk_that_shrank_stays_as_it_was() -> None:
    """What is beyond its end fails."""
    device = GrowingDevice()
    bench = Bench(device=device)
    bench.controller.units["root"] = IDENTITY._replace(size_bytes=512)

    bench.pair.ask_all_again()
    bench.controller.take()
    bench.driver.follow_size()

    assert (bench.driver.size_bytes, device.sizes) == (IDENTITY.size_bytes, [])
