"""Tests of the virtio block device with several request queues (VIRTIO 1.2, section 5.2.2)."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.virtio.block import HEADER, BlockConfig, BlockFeature, BlockRequest
from iovirt_dist.virtio.features import has
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.queue_messages import Completions
from tests.unit.hypervisor.vdev.virtio_bench import OK, BlockBench, Disk, Offered, unpack_returned

IN, OUT = BlockRequest.IN, BlockRequest.OUT
MIB = 1 << 20


def read(head: int, sector: int = 0, length: int = 512) -> Offered:
    """A request to read."""
    return Offered(head, HEADER.pack(IN, 0, sector), length + 1)


def by_queue(bench: BlockBench) -> list[tuple[int, list[int], bytes]]:
    """What comes back with the flush now: queue, heads, data, by message."""
    sent = [(body, unpack_returned(body, data)) for body, data in bench.flush() if isinstance(body, Completions)]
    return [(body.queue, [one.head for one in back], b"".join(one.data for one in back)) for body, back in sent]


@pytest.mark.parametrize("queues", [1, 2, 8])
def test_blk_with_several_queues_offers_them(queues: int) -> None:
    """Feature MQ and `num_queues`; with one queue there is no MQ."""
    blk = VirtioBlk(Disk(), queues=queues)

    assert has(blk.features, BlockFeature.MQ) is (queues > 1)
    assert BlockConfig.unpack(blk.config).num_queues == queues
    assert len(blk.queue_sizes) == len(blk.header_bytes) == queues


def test_blk_requests_of_each_queue_come_back_on_it() -> None:
    """Heads are the same on both: each queue has its own."""
    bench = BlockBench(queues=3)
    bench.doorbell(0, read(5, 8))
    bench.doorbell(2, read(5, 16))
    first, last = bench.disk.requests

    bench.blk.complete(last.tag, Status.OK, b"l" * 512, 0)
    bench.blk.complete(first.tag, Status.OK, b"f" * 512, 0)

    assert (first.offset, last.offset) == (4096, 8192)
    assert by_queue(bench) == [(0, [5], b"f" * 512), (2, [5], b"l" * 512)]


def test_blk_batch_of_outcomes_is_divided_by_queue() -> None:
    """The backend knows nothing of queues."""
    bench = BlockBench(queues=2)
    bench.doorbell(0, read(1), read(2))
    bench.doorbell(1, read(1), read(3))
    one, two, other, three = (request.tag for request in bench.disk.requests)

    bench.blk.succeed_many([other, one, three, two], [512] * 4, [b"a" * 512 + b"b" * 512, b"c" * 1024], 0)

    assert by_queue(bench) == [(0, [1, 2], b"b" * 512 + b"c" * 512), (1, [1, 3], b"a" * 512 + b"c" * 512)]
    assert bench.blk._bytes == 0


def test_blk_batch_of_outcomes_of_one_queue_goes_to_it() -> None:
    """Whichever it is."""
    bench = BlockBench(queues=2)
    bench.doorbell(1, read(1), read(2))
    tags = [request.tag for request in bench.disk.requests]

    bench.blk.succeed_many(tags, [512, 512], [b"x" * 1024], 0)

    assert by_queue(bench) == [(1, [1, 2], b"x" * 1024)]


def test_blk_queue_that_stops_takes_only_its_own_requests() -> None:
    """Those of several commands, too; their bytes are free again, and late outcomes find nothing."""
    bench = BlockBench(queues=2)
    bench.doorbell(0, read(1, length=8 * MIB), read(2))
    bench.doorbell(1, read(1))
    *void, kept = bench.disk.requests

    bench.write(Register.QUEUE_SEL, 0)
    bench.write(Register.QUEUE_READY, 0)
    in_flight = bench.blk._bytes
    for request in void:
        bench.blk.complete(request.tag, Status.OK, bytes(request.length), 0)
    bench.blk.complete(kept.tag, Status.OK, bytes(512), 0)

    assert in_flight == 512
    assert by_queue(bench) == [(1, [1], bytes(512))]
    assert (bench.blk._bytes, bench.blk._jobs) == (0, {})


def test_blk_queue_that_was_armed_again_gets_nothing_of_its_earlier_life() -> None:
    """Though another queue went on meanwhile."""
    bench = BlockBench(queues=2)
    bench.doorbell(1, read(4))
    bench.write(Register.QUEUE_SEL, 1)
    bench.write(Register.QUEUE_READY, 0)
    bench.write(Register.QUEUE_READY, 1)
    bench.flush()
    bench.doorbell(1, read(4, 8))
    old, new = bench.disk.requests

    bench.blk.succeed_many([old.tag, new.tag], [512, 512], [b"o" * 512, b"n" * 512], 0)

    assert by_queue(bench) == [(1, [4], b"n" * 512)]


def test_blk_bound_of_data_counts_all_queues() -> None:
    """What is done and has not left counts whichever queue it is on."""
    bench = BlockBench(queues=2)
    bench.doorbell(0, *(read(head, length=4 * MIB) for head in range(8)))
    bench.doorbell(1, *(read(head, length=4 * MIB) for head in range(8)))
    bench.host.hold = True
    bench.complete()

    full = bench.blk._room(512)
    bench.host.hold = False
    bench.flush()

    assert not full
    assert bench.blk._room(64 * MIB)


def test_blk_requests_of_several_queues_survive_a_round_trip() -> None:
    """They are asked for again, and come back on their queues."""
    bench = BlockBench(queues=2)
    bench.doorbell(0, read(1))
    bench.doorbell(1, Offered(2, HEADER.pack(OUT, 0, 4) + b"w" * 512, 1))
    state = bench.device.state()
    bench.disk.requests.clear()

    bench.device.restore(state)
    asked = bench.disk.asked()
    bench.complete()
    returned = bench.sent[-2:]

    assert asked == [(Opcode.READ, 0, 512), (Opcode.WRITE, 2048, 512)]
    assert [
        (body.queue, unpack_returned(body, data)[0].tail) for body, data in returned if isinstance(body, Completions)
    ] == [(0, OK), (1, OK)]
