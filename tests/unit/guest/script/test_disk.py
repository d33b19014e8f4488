"""The block driver against the real virtual device, transport and rings."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.script import BlockIo, BlockRequest, BlockStatus, DeviceError, DiskError, ScriptGuest, open_disk
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.wire.commands import Status
from tests.unit.guest.script.board import MIB, Board

SECTORS = 256
CONTENT = b"".join(number.to_bytes(4, "little") * 128 for number in range(SECTORS))
"""Each sector is its own number, again and again."""


def sector(number: int, count: int = 1) -> bytes:
    """Content of sectors."""
    return CONTENT[512 * number : 512 * (number + count)]


LAYOUTS = {
    "polled": {},
    "interrupts": {"interrupts": True},
    "packed": {"features": mask(Feature.RING_PACKED)},
    "packed with interrupts": {"features": mask(Feature.RING_PACKED), "interrupts": True},
    "event index": {"features": mask(Feature.RING_EVENT_IDX)},
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_disk_reads_and_writes_in_every_layout(options: dict[str, object]) -> None:
    """What is written is read back; the features are those that were asked for."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> tuple[int, bytes, bytes]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=4, **options)  # type: ignore[arg-type]  # by name
        before = await disk.read(3, 2)
        await disk.write(4, b"x" * 512)
        return disk.capacity, before, await disk.read(3, 2)

    assert board.run(script) == (SECTORS, sector(3, 2), sector(3) + b"x" * 512)
    assert board.doorbells == 3
    assert (board.guest.interrupts_taken > 0) == bool(options.get("interrupts"))


def test_disk_larger_than_a_request_is_read_in_several() -> None:
    """The buffers bound a request, not a read."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> bytes:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2, io_bytes=4096)
        await disk.write(0, bytes(512 * 10))
        return await disk.read(0, SECTORS)

    assert board.run(script) == bytes(512 * 10) + CONTENT[5120:]


def test_batch_is_one_doorbell_and_comes_back_by_number() -> None:
    """Requests of a batch are numbered on; the data lies in the buffers."""
    board = Board(CONTENT)
    wanted = [(17 * at) % SECTORS for at in range(64)]

    async def script(guest: ScriptGuest) -> list[tuple[int, int, bytes]]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK))
        assert disk.submit_many(BlockIo(BlockRequest.IN, at, 1) for at in wanted[:1]) == 0
        assert disk.submit_many([BlockIo(BlockRequest.IN, at, 1) for at in wanted[1:]]) == 1
        assert disk.free == 0
        done = await disk.completions()
        result = [(one.number, one.status, bytes(one.data)) for one in done]
        assert disk.free == 64
        assert disk.completions_nowait() == []
        return result

    assert board.run(script) == [(at, BlockStatus.OK, sector(number)) for at, number in enumerate(wanted)]
    assert board.doorbells == 2


def test_ring_goes_round_many_times() -> None:
    """Slots, descriptors and indices are used again and again; batches of seven lie across the ring's end."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> int:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=7, io_bytes=512)
        right = 0
        for at in range(2000):
            disk.submit_many(BlockIo(BlockRequest.IN, (at + more) % SECTORS, 1) for more in range(7))
            done = await disk.completions()
            right += sum(one.data == sector((at + more) % SECTORS) for more, one in enumerate(done))
        return right

    assert board.run(script) == 14000


def test_awaited_and_batched_requests_do_not_take_each_others_results() -> None:
    """Two tasks at one disk: each gets its own."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> tuple[list[int], bytes]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=4)
        reader = guest.spawn(disk.read(9, 1))
        disk.submit_many([BlockIo(BlockRequest.IN, 1, 1)])
        done = await disk.completions()
        return [one.number for one in done], await reader

    assert board.run(script) == ([0], sector(9))


def test_requests_wait_for_a_free_slot() -> None:
    """More tasks than depth: all are served."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> list[bytes]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2)
        tasks = [guest.spawn(disk.read(at, 1)) for at in range(10)]
        return [await task for task in tasks]

    assert board.run(script) == [sector(at) for at in range(10)]


def test_flush_discard_and_identity() -> None:
    """The requests without sectors of data."""
    board = Board(CONTENT)
    assert board.disk is not None

    async def script(guest: ScriptGuest) -> str:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK))
        await disk.flush()
        await disk.discard(8, 16)
        await disk.write_zeroes(1, 2)
        await disk.write_zeroes(3, 4, unmap=True)
        return await disk.identity()

    assert board.run(script) == "DISK"
    assert (board.disk.flushes, board.disk.discards) == (1, [(4096, 8192), (1536, 2048)])
    assert board.disk.zeroed == [(512, 1024)]


def test_read_only_disk_says_so_and_refuses() -> None:
    """The feature bit is seen; a write is an I/O error."""
    board = Board(CONTENT, read_only=True)

    async def script(guest: ScriptGuest) -> bool:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK))
        with pytest.raises(DiskError, match="OUT of 0 sectors at 0: the disk reports an I/O error"):
            await disk.write(0, bytes(512))
        return disk.read_only

    assert board.run(script)


def test_failed_read_raises_alone_and_is_a_status_in_a_batch() -> None:
    """Whoever awaits one request gets an exception; a batch is not lost for one of it."""
    board = Board(CONTENT)
    assert board.disk is not None
    board.disk.fails = Status.MEDIUM_ERROR

    async def script(guest: ScriptGuest) -> list[int]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK))
        with pytest.raises(DiskError, match="IN of 1 sectors at 5"):
            await disk.read(5, 1)
        disk.submit_many([BlockIo(BlockRequest.IN, 0, 1), BlockIo(BlockRequest.IN, SECTORS, 1)])
        return [one.status for one in await disk.completions() + await disk.completions()]

    assert sorted(board.run(script)) == [BlockStatus.IOERR, BlockStatus.IOERR]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([BlockIo(BlockRequest.IN, 0, 1)] * 3, "2 requests are in flight; take completions first"),
        ([BlockIo(BlockRequest.IN, 0, 9)], "a request of 4608 bytes, buffers have 4096"),
    ],
)
def test_batch_beyond_the_bounds_raises_and_the_rest_is_on_its_way(requests: list[BlockIo], message: str) -> None:
    """What was in front of the wrong one is submitted and comes back."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> int:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2, io_bytes=4096)
        with pytest.raises(DiskError, match=message):
            disk.submit_many(requests)
        return len(await disk.completions()) if disk.free < 2 else 0

    assert board.run(script) == min(len(requests) - 1, 2)


def test_open_disk_where_there_is_none_says_what_is_there() -> None:
    """An empty slot, and another device."""
    board = Board()

    async def script(guest: ScriptGuest) -> None:
        with pytest.raises(DeviceError, match=r"at 0x10001000: expected a virtio block device, found nothing"):
            await open_disk(guest.virtio(VirtioSlot.DISK))
        with pytest.raises(DeviceError, match=r"expected a virtio block device, found device 3, version 2"):
            await open_disk(guest.virtio(VirtioSlot.CONSOLE))

    board.run(script)


def test_open_disk_in_little_memory_says_which_key() -> None:
    """The buffers of the depth must fit."""
    board = Board(CONTENT, memory_bytes=MIB)

    async def script(guest: ScriptGuest) -> None:
        with pytest.raises(Exception, match=r"bytes of memory are wanted and \d+ are left; set guest\.load\.memory"):
            await open_disk(guest.virtio(VirtioSlot.DISK))

    board.run(script)


def test_disk_opened_again_starts_afresh() -> None:
    """The reset drops the queue of the first."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> bytes:
        first = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2)
        first.submit_many([BlockIo(BlockRequest.IN, 0, 1)])
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2)
        return await disk.read(7, 1)

    assert board.run(script) == sector(7)


@pytest.mark.parametrize("interrupts", [False, True])
def test_device_that_needs_a_reset_ends_the_wait(interrupts: bool) -> None:
    """A buffer outside RAM: a configuration change interrupt tells of it, and whoever waits learns of it."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> None:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=2, interrupts=interrupts)
        guest.memory.write(disk.queue.setup.descriptors + 3 * 16, (0x1000).to_bytes(8, "little"))
        disk.submit_many([BlockIo(BlockRequest.FLUSH)] * 2)
        with pytest.raises(DeviceError, match="the device needs a reset"):
            await disk.completions()

    board.run(script)


def test_requests_in_flight_are_known_with_the_data_of_writes() -> None:
    """In the order of their numbers; what was taken back is not among them."""
    board = Board(CONTENT)

    async def script(guest: ScriptGuest) -> list[tuple[int, bytes]]:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK), depth=4)
        await disk.write(0, b"a" * 512)
        disk.submit_many([BlockIo(BlockRequest.OUT, 1, 0, b"b" * 512), BlockIo(BlockRequest.IN, 0, 1)])
        found = [(number, bytes(data)) for number, data in disk.in_flight()]
        await disk.completions()
        return found

    assert board.run(script) == [(1, b"b" * 512), (2, b"")]
