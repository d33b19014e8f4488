"""Tests of the virtio block device by VIRTIO 1.2, section 5.2: configuration, requests of one command, state."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.vdev.virtio_blk_config import MAX_RANGES, MAX_ZEROES_SECTORS
from iovirt_dist.step import Tracer
from iovirt_dist.virtio.block import HEADER, RANGE, BlockConfig, BlockFeature, BlockRequest
from iovirt_dist.virtio.features import Feature, has, mask
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Opcode, Status
from tests.unit.hypervisor.vdev.virtio_bench import (
    IOERR,
    LIVE,
    NEEDS_RESET,
    OK,
    UNSUPP,
    Bench,
    BlockBench,
    Disk,
    Offered,
    Returned,
)

IN, OUT, FLUSH, GET_ID = BlockRequest.IN, BlockRequest.OUT, BlockRequest.FLUSH, BlockRequest.GET_ID
DISCARD, WRITE_ZEROES = BlockRequest.DISCARD, BlockRequest.WRITE_ZEROES
MINIMUM = mask(Feature.VERSION_1)
MIB = 1 << 20


# --- section 5.2.3 to 5.2.5: features and configuration


def test_blk_configuration_tells_capacity_and_limits() -> None:
    """In sectors of 512 bytes, whatever the block size is."""
    config = BlockConfig.unpack(VirtioBlk(Disk(3 * MIB, 4096)).config)

    assert (config.capacity, config.blk_size, config.seg_max) == (6144, 4096, 126)
    assert (config.max_discard_seg, config.discard_sector_alignment) == (MAX_RANGES, 8)
    assert (config.max_write_zeroes_seg, config.max_write_zeroes_sectors) == (MAX_RANGES, MAX_ZEROES_SECTORS)


def test_blk_request_of_all_segments_fits_a_ring_of_128() -> None:
    """A VMM chooses its ring's size after it has read this, and QEMU chooses 128; status and header are two more."""
    config = BlockConfig.unpack(VirtioBlk(Disk()).config)

    assert config.seg_max + 2 <= 128


def test_blk_capacity_is_readable_through_the_transport() -> None:
    """Two halves at the start of configuration space."""
    bench = BlockBench(Disk(3 << 40))

    assert bench.read(Register.CONFIG) | bench.read(Register.CONFIG + 4) << 32 == (3 << 40) // 512


@pytest.mark.parametrize(("read_only", "absent"), [(True, BlockFeature.DISCARD), (False, BlockFeature.RO)])
def test_blk_features_follow_the_disk(read_only: bool, absent: BlockFeature) -> None:
    """RO, or what writes."""
    features = VirtioBlk(Disk(read_only=read_only)).features

    assert has(features, BlockFeature.RO) is read_only
    assert has(features, BlockFeature.WRITE_ZEROES) is not read_only
    assert not has(features, absent)
    assert has(features, BlockFeature.FLUSH)


@pytest.mark.parametrize("block_bytes", [520, 384, 700])
def test_blk_disk_whose_blocks_do_not_fit_sectors_is_refused(block_bytes: int) -> None:
    """With its size in the message."""
    with pytest.raises(ConfigError, match=str(block_bytes)):
        VirtioBlk(Disk(block_bytes=block_bytes))


def test_blk_configuration_cannot_be_written() -> None:
    """CONFIG_WCE is not offered."""
    bench = BlockBench()
    before = bench.blk.config

    bench.write(Register.CONFIG + 32, 0, 1)

    assert bench.blk.config == before


# --- section 5.2.6: requests


def test_blk_read_returns_data_and_status() -> None:
    """The status is the last byte of a writable part that is longer than the data."""
    bench = BlockBench()

    at_once = bench.ask(IN, sector=8, writable=1025, head=7)
    asked = bench.disk.asked()
    returned = bench.complete()

    assert at_once == []
    assert asked == [(Opcode.READ, 4096, 1024)]
    assert returned == [Returned(7, b"\xa5" * 1024, OK)]


def test_blk_write_goes_out_with_its_data() -> None:
    """And comes back with a status."""
    bench = BlockBench()

    bench.ask(OUT, sector=3, data=b"x" * 512 + b"y" * 512, head=9)
    (request,) = bench.disk.requests

    assert (request.opcode, request.offset, request.length) == (Opcode.WRITE, 1536, 1024)
    assert bytes(request.data) == b"x" * 512 + b"y" * 512
    assert bench.complete() == [Returned(9, b"", OK)]


def test_blk_flush_is_the_backends() -> None:
    """Complete when the backend's is."""
    bench = BlockBench()

    at_once = bench.ask(FLUSH)

    assert at_once == []
    assert bench.disk.asked() == [(Opcode.FLUSH, 0, 0)]
    assert bench.complete() == [Returned(0, b"", OK)]


@pytest.mark.parametrize(("writable", "name"), [(21, b"disk-of-alice".ljust(20, b"\0")), (5, b"disk"), (1, b"")])
def test_blk_get_id_returns_the_serial_as_far_as_there_is_room(writable: int, name: bytes) -> None:
    """20 bytes, padded with zeroes; no backend is asked."""
    bench = BlockBench()

    assert bench.ask(GET_ID, writable=writable) == [Returned(0, name, OK)]
    assert bench.disk.requests == []


@pytest.mark.parametrize("kind", [2, 3, 10, 12, 14, 0xFFFF_FFFF])
def test_blk_unknown_type_is_unsupported(kind: int) -> None:
    """Secure erase and lifetimes among them, which are not offered."""
    assert BlockBench().ask(kind, writable=513) == [Returned(0, b"", UNSUPP)]


@pytest.mark.parametrize(
    ("sector", "length"),
    [(2047, 1024), (2048, 512), (1 << 54, 512), ((1 << 64) - 1, 512), (0, 511), (0, 513), (0, 1), (2049, 0)],
)
def test_blk_access_that_is_out_of_range_or_no_whole_sectors_fails(sector: int, length: int) -> None:
    """The disk has 2048 sectors. Reading and writing alike."""
    bench = BlockBench(Disk(MIB))

    read = bench.ask(IN, sector, writable=length + 1)
    written = bench.ask(OUT, sector, data=bytes(length))

    assert (read, written) == ([Returned(0, b"", IOERR)], [Returned(0, b"", IOERR)])
    assert bench.disk.requests == []


def test_blk_last_sector_can_be_accessed() -> None:
    """The range ends where the disk does."""
    bench = BlockBench(Disk(MIB))

    bench.ask(IN, 2047, writable=513)
    bench.ask(OUT, 2047, data=bytes(512), head=1)

    assert bench.disk.asked() == [(Opcode.READ, MIB - 512, 512), (Opcode.WRITE, MIB - 512, 512)]


def test_blk_empty_access_is_done_at_once() -> None:
    """No data, no backend."""
    bench = BlockBench()

    assert bench.ask(IN, writable=1) == [Returned(0, b"", OK)]
    assert bench.ask(OUT) == [Returned(0, b"", OK)]


def test_blk_read_only_disk_refuses_whatever_writes() -> None:
    """Section 5.2.6.2: IOERR for a write; what was not offered is not supported."""
    bench = BlockBench(Disk(read_only=True))

    assert bench.ask(OUT, data=bytes(512)) == [Returned(0, b"", IOERR)]
    assert bench.ask(DISCARD, data=RANGE.pack(0, 1, 0)) == [Returned(0, b"", UNSUPP)]
    assert bench.ask(WRITE_ZEROES, data=RANGE.pack(0, 1, 0)) == [Returned(0, b"", UNSUPP)]
    assert bench.disk.requests == []


def test_blk_data_behind_the_header_of_a_read_is_ignored() -> None:
    """It means nothing there."""
    bench = BlockBench()

    bench.ask(IN, 1, data=b"junk" * 128, writable=513)

    assert bench.disk.requests[0].data == b""
    assert bench.complete() == [Returned(0, b"\xa5" * 512, OK)]


@pytest.mark.parametrize(
    ("readable", "writable"), [(b"", 513), (bytes(15), 513), (bytes(16), 0), (bytes(16) + bytes(512), 0)]
)
def test_blk_request_without_room_for_header_or_status_needs_a_reset(readable: bytes, writable: int) -> None:
    """There is no way to tell the driver otherwise; requests after it are not looked at."""
    bench = BlockBench()

    taken = bench.doorbell(0, Offered(0, bytes(16), 513), Offered(1, readable, writable), Offered(2, bytes(16), 513))

    assert taken
    assert bench.read(Register.STATUS) == LIVE | NEEDS_RESET
    assert bench.host.faults == {"block-request": 1}
    assert len(bench.disk.requests) == 1
    assert bench.complete() == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Status.MEDIUM_ERROR, IOERR),
        (Status.OUT_OF_RANGE, IOERR),
        (Status.QUEUE_FULL, IOERR),
        (Status.UNKNOWN_OPCODE, UNSUPP),
    ],
)
def test_blk_failure_of_the_backend_is_told_without_data(status: Status, told: int) -> None:
    """Of a read, a write and a flush."""
    bench = BlockBench()
    bench.ask(IN, writable=513, head=0)
    bench.ask(OUT, data=bytes(512), head=1)
    bench.ask(FLUSH, head=2)

    assert bench.complete(status) == [Returned(head, b"", told) for head in range(3)]
    assert bench.blk.failed == 3


def test_blk_read_with_less_data_than_asked_for_fails() -> None:
    """A backend that breaks its word is a medium that fails."""
    bench = BlockBench()
    bench.ask(IN, writable=1025)

    bench.blk.complete(bench.disk.requests[0].tag, Status.OK, bytes(512), 0)

    assert bench.returned() == [Returned(0, b"", IOERR)]


def test_blk_completion_twice_or_of_nothing_is_ignored() -> None:
    """Tags that are not outstanding."""
    bench = BlockBench()
    bench.ask(IN, writable=513)
    tag = bench.disk.requests[0].tag
    bench.complete()

    bench.blk.complete(tag, Status.OK, bytes(512), 0)
    bench.blk.complete(12345, Status.OK, bytes(512), 0)

    assert bench.returned() == []


def test_blk_completion_of_an_earlier_life_is_ignored() -> None:
    """The same head is in flight again, for another life of the queue."""
    bench = BlockBench()
    bench.ask(IN, writable=513, head=4)
    (old,) = bench.disk.requests
    bench.start()
    bench.ask(IN, sector=1, writable=513, head=4)

    bench.blk.complete(old.tag, Status.OK, b"o" * 512, 0)
    early = bench.returned()
    bench.disk.requests.remove(old)

    assert early == []
    assert bench.complete(fill=b"n") == [Returned(4, b"n" * 512, OK)]


def test_blk_counts_requests_by_type() -> None:
    """Unknown ones, too."""
    bench = BlockBench()
    for kind in (IN, IN, OUT, FLUSH, GET_ID, 99):
        bench.ask(kind, data=bytes(512) * (kind == OUT), writable=513, head=kind & 7)

    counted = {name: count for name, count in bench.blk.counts.items() if count}

    assert counted == {"in": 2, "out": 1, "flush": 1, "get_id": 1, "unknown": 1}


def test_blk_trace_shows_type_range_and_boundary_of_each_request() -> None:
    """All that is known at the driver level, while somebody looks; short requests, too."""
    tracer = Tracer("alice")
    disk = Disk()
    blk = VirtioBlk(disk, tracer=tracer)
    bench = Bench(blk).start()
    tracer.on = True

    bench.doorbell(
        0,
        Offered(1, HEADER.pack(IN, 0, 8), 1025),
        Offered(2, HEADER.pack(OUT, 0, 9) + bytes(512), 1),
        Offered(3, HEADER.pack(99, 0, 0), 0),
    )

    assert [dict(point.fields) for point in tracer.take() if point.event == "block"] == [
        {"device": 3, "type": "in", "offset": 4096, "length": 1024, "head": 1},
        {"device": 3, "type": "out", "offset": 4608, "length": 512, "head": 2},
        {"device": 3, "type": "99", "offset": 0, "length": 0, "head": 3},
    ]
