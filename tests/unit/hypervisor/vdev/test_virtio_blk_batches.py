"""The virtio block device in the midst of requests: its state, batches, and a disk that grows."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.virtio.block import HEADER, RANGE, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status
from tests.unit.hypervisor.vdev.virtio_bench import (
    CONFIGURATION,
    IOERR,
    NEEDS_RESET,
    OK,
    BatchDisk,
    BlockBench,
    Disk,
    Offered,
    Returned,
)

IN, OUT, FLUSH, GET_ID = BlockRequest.IN, BlockRequest.OUT, BlockRequest.FLUSH, BlockRequest.GET_ID
DISCARD, WRITE_ZEROES = BlockRequest.DISCARD, BlockRequest.WRITE_ZEROES
MINIMUM = mask(Feature.VERSION_1)
MIB = 1 << 20


# --- state


def test_blk_state_in_the_middle_of_requests_asks_the_twins_backend_again() -> None:
    """A plain read, a divided read with one part done, a write-through write that waits for its flush."""
    bench, twin = BlockBench(features=MINIMUM), BlockBench(features=MINIMUM)
    bench.ask(OUT, data=b"w" * 512, head=0)
    bench.complete()
    bench.ask(IN, writable=513, head=1)
    bench.ask(IN, writable=MAX_DATA_BYTES + 512 + 1, head=2)
    part = bench.disk.requests.pop(2)
    bench.blk.complete(part.tag, Status.OK, b"p" * part.length, 0)

    twin.device.restore(bench.device.state())

    assert sorted(twin.disk.asked()) == sorted(bench.disk.asked())
    assert sorted(twin.complete()) == sorted(bench.complete())
    assert twin.device.state() == bench.device.state()


def test_blk_state_with_much_in_flight_leaves_the_twin_no_more_room() -> None:
    """The bound is of both."""
    bench, twin = BlockBench(), BlockBench()
    for head in range(16):
        bench.ask(IN, writable=4 * MIB + 1, head=head)

    twin.device.restore(bench.device.state())

    assert twin.ask(IN, writable=513, head=16) == [Returned(16, b"", IOERR)]


def test_blk_sector_and_length_are_64_and_32_bits_wide() -> None:
    """A header's fields are little-endian: type u32, reserved u32, sector u64."""
    bench = BlockBench(Disk(1 << 45))

    bench.doorbell(0, Offered(0, struct.pack("<IIQ", 0, 0xFFFF_FFFF, 1 << 35), 513))

    assert bench.disk.asked() == [(Opcode.READ, 1 << 44, 512)]


# --- batches


def test_blk_hands_a_batch_over_as_one_and_in_order() -> None:
    """Whatever is no plain command ends what was gathered before it."""
    disk = BatchDisk()
    bench = BlockBench(disk)
    plain = [Offered(head, HEADER.pack(IN, 0, head), 513) for head in range(3)]
    write = Offered(3, HEADER.pack(OUT, 0, 9) + bytes(512), 1)
    discard = Offered(4, HEADER.pack(DISCARD, 0, 0) + RANGE.pack(8, 8, 0), 1)
    flush = Offered(5, HEADER.pack(FLUSH, 0, 0), 1)

    assert bench.doorbell(0, *plain, write, discard, flush, Offered(6, HEADER.pack(IN, 0, 0), 513))

    assert disk.handed_over == [4, 1, 2]
    assert [opcode for opcode, _, _ in disk.asked()] == [
        *(Opcode.READ, Opcode.READ, Opcode.READ, Opcode.WRITE, Opcode.DISCARD, Opcode.FLUSH, Opcode.READ)
    ]


def test_blk_hands_over_what_came_before_a_request_that_is_none() -> None:
    """The device needs a reset, and what is under way comes back to nobody."""
    disk = BatchDisk()
    bench = BlockBench(disk)

    assert bench.doorbell(0, Offered(0, HEADER.pack(IN, 0, 0), 513), Offered(1, HEADER.pack(IN, 0, 0), 0))

    assert disk.handed_over == [1]
    assert bench.read(Register.STATUS) & NEEDS_RESET


@pytest.mark.parametrize("discard", [False, True])
def test_blk_takes_good_outcomes_as_one(discard: bool) -> None:
    """Frames go on as they are; also while a request of several commands is in flight, then one by one."""
    bench = BlockBench()
    offered = [Offered(head, HEADER.pack(IN, 0, head), 513) for head in range(2)]
    others = [Offered(3, HEADER.pack(DISCARD, 0, 0) + RANGE.pack(8, 8, 0) + RANGE.pack(0, 8, 0), 1)] * discard
    assert bench.doorbell(0, *offered, Offered(2, HEADER.pack(FLUSH, 0, 0), 1), *others)
    tags = [request.tag for request in bench.disk.requests[:3]]

    bench.blk.succeed_many(tags, [512, 512, 0], [b"a" * 512 + b"b" * 512], 0)

    assert bench.returned() == [Returned(0, b"a" * 512, OK), Returned(1, b"b" * 512, OK), Returned(2, b"", OK)]
    assert len(bench.blk.state()["in_flight"]) == 2 * discard


def test_blk_ignores_outcomes_of_an_earlier_life_in_a_batch() -> None:
    """The others of the batch count."""
    bench = BlockBench()
    assert bench.doorbell(0, Offered(1, HEADER.pack(IN, 0, 1), 513))
    [request] = bench.disk.requests

    bench.blk.succeed_many([request.tag ^ 1 << 40, request.tag], [512, 512], [b"x" * 512 + b"y" * 512], 0)

    assert bench.returned() == [Returned(1, b"y" * 512, OK)]


def test_blk_disk_that_grew_tells_its_driver_and_takes_requests_for_what_is_new() -> None:
    """Capacity, its generation, the configuration change interrupt; a copy of the device knows it, too."""
    bench, copy = BlockBench(Disk(MIB)), BlockBench(Disk(MIB))
    refused = bench.ask(IN, sector=3000, writable=513)

    bench.blk.grown(2 * MIB)
    taken = bench.ask(IN, sector=3000, writable=513)
    copy.device.restore(bench.device.state())

    assert (refused, taken) == ([Returned(0, b"", IOERR)], [])
    assert bench.read(Register.CONFIG) == 4096
    assert bench.read(Register.CONFIG_GENERATION) == 1
    assert bench.read(Register.INTERRUPT_STATUS) == CONFIGURATION
    assert copy.ask(IN, sector=4095, writable=513) == []
