"""Tests of the virtio block device by VIRTIO 1.2, section 5.2: requests of several commands, and bounds."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_blk_config import MAX_RANGES, MAX_ZEROES_SECTORS
from iovirt_dist.virtio.block import RANGE, BlockConfig, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status
from tests.unit.hypervisor.vdev.virtio_bench import (
    IOERR,
    OK,
    UNSUPP,
    Bench,
    BlockBench,
    Disk,
    Returned,
)

IN, OUT, FLUSH, GET_ID = BlockRequest.IN, BlockRequest.OUT, BlockRequest.FLUSH, BlockRequest.GET_ID
DISCARD, WRITE_ZEROES = BlockRequest.DISCARD, BlockRequest.WRITE_ZEROES
MINIMUM = mask(Feature.VERSION_1)
MIB = 1 << 20


# --- large requests


def test_blk_read_larger_than_a_command_is_divided_and_joined() -> None:
    """Parts may complete in any order."""
    bench = BlockBench()
    length = 2 * MAX_DATA_BYTES + 4096

    bench.ask(IN, 8, writable=length + 1, head=3)
    asked = bench.disk.asked()
    for at, request in reversed([*enumerate(bench.disk.requests)]):
        bench.blk.complete(request.tag, Status.OK, bytes((at + 1,)) * request.length, 0)
    (returned,) = bench.returned()

    assert asked == [
        (Opcode.READ, 4096, MAX_DATA_BYTES),
        (Opcode.READ, 4096 + MAX_DATA_BYTES, MAX_DATA_BYTES),
        (Opcode.READ, 4096 + 2 * MAX_DATA_BYTES, 4096),
    ]
    assert returned == Returned(3, b"\1" * MAX_DATA_BYTES + b"\2" * MAX_DATA_BYTES + b"\3" * 4096, OK)


def test_blk_read_of_which_a_part_fails_has_failed() -> None:
    """No data comes back, and only one completion."""
    bench = BlockBench()
    bench.ask(IN, writable=MAX_DATA_BYTES + 512 + 1)
    first, second = bench.disk.requests

    bench.blk.complete(first.tag, Status.MEDIUM_ERROR, b"", 0)
    early = bench.returned()
    bench.blk.complete(second.tag, Status.OK, bytes(512), 0)

    assert early == []
    assert bench.returned() == [Returned(0, b"", IOERR)]


def test_blk_write_larger_than_a_command_is_divided() -> None:
    """Each part has its own data."""
    bench = BlockBench()
    data = b"a" * MAX_DATA_BYTES + b"b" * 512

    bench.ask(OUT, 0, data=data, head=1)

    assert bench.disk.asked() == [(Opcode.WRITE, 0, MAX_DATA_BYTES), (Opcode.WRITE, MAX_DATA_BYTES, 512)]
    assert b"".join(bytes(request.data) for request in bench.disk.requests) == data
    assert bench.complete() == [Returned(1, b"", OK)]


def test_blk_request_larger_than_a_message_fails() -> None:
    """16 MiB is the most, and is taken."""
    bench = BlockBench()

    refused = bench.ask(IN, writable=16 * MIB + 512 + 1, head=0)
    bench.ask(IN, writable=16 * MIB + 1, head=1)
    returned = bench.complete()

    assert refused == [Returned(0, b"", IOERR)]
    assert [(one.head, len(one.data), one.tail) for one in returned] == [(1, 16 * MIB, OK)]


def test_blk_data_in_flight_is_bounded() -> None:
    """64 MiB for a small guest: what exceeds it fails, and there is room again when some of it is done."""
    bench = BlockBench()
    for head in range(16):
        bench.ask(IN, writable=4 * MIB + 1, head=head)

    refused = bench.ask(IN, writable=513, head=20) + bench.ask(IN, writable=5 * MIB + 1, head=21)
    bench.blk.complete(bench.disk.requests[0].tag, Status.MEDIUM_ERROR, b"", 0)
    bench.returned()
    taken = bench.ask(OUT, data=bytes(4 * MIB), head=22)

    assert refused == [Returned(20, b"", IOERR), Returned(21, b"", IOERR)]
    assert taken == []


def test_blk_data_in_flight_may_be_as_much_as_the_guest_has_memory() -> None:
    """128 MiB here."""
    blk, small = VirtioBlk(Disk(), 128 * MIB), VirtioBlk(Disk(), 1 * MIB)
    Bench(blk)
    Bench(small)

    assert (blk._room(128 * MIB), blk._room(128 * MIB + 1)) == (True, False)
    assert small._room(64 * MIB)


def test_blk_data_that_waits_for_the_guest_is_bounded_with_that_in_flight() -> None:
    """While the guest acknowledges nothing, what was read is kept here."""
    bench = BlockBench()
    for head in range(16):
        bench.ask(IN, writable=4 * MIB + 1, head=head)
    bench.host.hold = True
    held = bench.complete()

    bench.ask(IN, writable=513, head=20)
    bench.ask(IN, writable=5 * MIB + 1, head=21)
    bench.host.hold = False
    returned = bench.returned()

    assert held == []
    assert [one.tail for one in returned] == [OK] * 16 + [IOERR, IOERR]
    assert bench.ask(IN, writable=513, head=20) == []


# --- write-through, section 5.2.6.2


def test_blk_write_of_a_driver_without_flush_is_flushed_before_it_completes() -> None:
    """It takes the device for write-through."""
    bench = BlockBench(features=MINIMUM)
    bench.ask(OUT, data=bytes(512), head=6)

    written = bench.complete()
    flush = bench.disk.asked()
    flushed = bench.complete()

    assert (written, flush) == ([], [(Opcode.FLUSH, 0, 0)])
    assert flushed == [Returned(6, b"", OK)]


def test_blk_write_through_that_failed_is_not_flushed() -> None:
    """There is nothing to keep."""
    bench = BlockBench(features=MINIMUM)
    bench.ask(OUT, data=bytes(512))

    returned = bench.complete(Status.MEDIUM_ERROR)

    assert returned == [Returned(0, b"", IOERR)]
    assert bench.disk.requests == []


def test_blk_write_through_whose_flush_fails_has_failed() -> None:
    """The data is not safe."""
    bench = BlockBench(features=MINIMUM)
    bench.ask(OUT, data=bytes(512))
    bench.complete()

    assert bench.complete(Status.MEDIUM_ERROR) == [Returned(0, b"", IOERR)]


# --- DISCARD and WRITE_ZEROES


def test_blk_discard_of_several_ranges_is_one_request() -> None:
    """Empty ranges are left out."""
    bench = BlockBench()
    data = RANGE.pack(8, 8, 0) + RANGE.pack(0, 0, 0) + RANGE.pack(100, 2, 0)

    bench.ask(DISCARD, data=data, head=2)
    asked = bench.disk.asked()

    assert asked == [(Opcode.DISCARD, 4096, 4096), (Opcode.DISCARD, 51200, 1024)]
    assert bench.complete() == [Returned(2, b"", OK)]


@pytest.mark.parametrize(("flags", "opcode"), [(0, Opcode.WRITE_ZEROES), (1, Opcode.DISCARD)])
def test_blk_write_zeroes_sends_no_zeroes(flags: int, opcode: Opcode) -> None:
    """What may be unmapped is discarded: that reads as zeroes, too."""
    bench = BlockBench()

    bench.ask(WRITE_ZEROES, data=RANGE.pack(4, 16, flags))
    (request,) = bench.disk.requests

    assert (request.opcode, request.offset, request.length, request.data) == (opcode, 2048, 8192, b"")
    assert bench.complete() == [Returned(0, b"", OK)]


def test_blk_write_zeroes_of_all_that_is_advertised_is_taken() -> None:
    """16 segments of 64 MiB; none of it counts as data in flight."""
    bench = BlockBench(Disk(2 << 30))
    config = BlockConfig.unpack(bench.blk.config)
    sectors = config.max_write_zeroes_sectors
    data = b"".join(RANGE.pack(at * sectors, sectors, at & 1) for at in range(config.max_write_zeroes_seg))

    refused = bench.ask(WRITE_ZEROES, data=data)

    assert refused == []
    assert bench.blk._bytes == 0
    assert config.write_zeroes_may_unmap == 1
    assert bench.complete() == [Returned(0, b"", OK)]


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
def test_blk_ranges_that_are_all_empty_are_done(kind: int) -> None:
    """Nothing is asked of the backend."""
    bench = BlockBench()

    assert bench.ask(kind, data=RANGE.pack(5, 0, 0)) == [Returned(0, b"", OK)]


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (DISCARD, RANGE.pack(0, 8, 1), UNSUPP),
        (DISCARD, RANGE.pack(0, 8, 2), UNSUPP),
        (WRITE_ZEROES, RANGE.pack(0, 8, 2), UNSUPP),
        (DISCARD, RANGE.pack(2040, 9, 0), IOERR),
        (WRITE_ZEROES, RANGE.pack(1 << 63, 1, 0), IOERR),
        (DISCARD, b"", IOERR),
        (DISCARD, bytes(15), IOERR),
        (DISCARD, RANGE.pack(0, 1, 0) * (MAX_RANGES + 1), IOERR),
        (DISCARD, RANGE.pack(0, 8, 0) + RANGE.pack(5000, 1, 0), IOERR),
    ],
)
def test_blk_ranges_that_cannot_be_are_refused_as_a_whole(kind: int, data: bytes, status: int) -> None:
    """Section 5.2.6.2: unknown flags, and unmap for DISCARD, are not supported; the rest is an error."""
    bench = BlockBench(Disk(MIB))

    assert bench.ask(kind, data=data) == [Returned(0, b"", status)]
    assert bench.disk.requests == []


def test_blk_write_zeroes_longer_than_the_limit_is_refused() -> None:
    """`max_write_zeroes_sectors`, as the configuration says."""
    bench = BlockBench()

    assert bench.ask(WRITE_ZEROES, data=RANGE.pack(0, MAX_ZEROES_SECTORS + 1, 0)) == [Returned(0, b"", IOERR)]


@pytest.mark.parametrize("kind", [DISCARD, WRITE_ZEROES])
def test_blk_what_was_not_negotiated_is_unsupported(kind: int) -> None:
    """A driver that did not accept the feature."""
    bench = BlockBench(features=MINIMUM)

    assert bench.ask(kind, data=RANGE.pack(0, 1, 0)) == [Returned(0, b"", UNSUPP)]
