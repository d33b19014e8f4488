"""The regions of a front end."""

from __future__ import annotations

import pytest

from iovirt_dist.gateway.vhost_user.memory import MAX_SLOTS, MappingError, RegionError, RegionMemory
from iovirt_dist.gateway.vhost_user.messages import Region
from iovirt_dist.virtio.memory import MemoryRangeError
from tests.unit.gateway.vhost_user.front_end import BAD_FD, FakeMapper

LOW = Region(0, 0x1000, 0x7000_0000, 0)
HIGH = Region(0x10_0000, 0x2000, 0x7000_1000, 0x1000)
TOP = Region((1 << 64) - 0x1000, 0x1000, 0x9000_0000, 0)
NEXT_TO_LOW = Region(0x1000, 0x100, 0x6000_0000, 0)


@pytest.fixture
def mapper() -> FakeMapper:
    """Files of a megabyte."""
    return FakeMapper()


@pytest.fixture
def memory(mapper: FakeMapper) -> RegionMemory:
    """Two regions of one file."""
    memory = RegionMemory(mapper)
    memory.set_table([HIGH, LOW], [100, 100])
    return memory


def test_region_memory_reaches_the_file(memory: RegionMemory, mapper: FakeMapper) -> None:
    """Read, view and write, in each region, whichever was last."""
    mapper.files[100][0x0FFF:0x1002] = b"abc"
    memory.write(0x10_1FFE, b"xy")
    memory.write(0x10, memoryview(b"z"))

    assert memory.read(0xFFF, 1) == b"a"
    assert memory.read(0x10_0000, 2) == b"bc"
    assert bytes(memory.view(0xFFF, 1)) == b"a"
    assert bytes(memory.view(0x10_0000, 2)) == b"bc"
    assert mapper.files[100][0x2FFE:0x3000] == b"xy"
    assert mapper.files[100][0x10] == ord("z")


def test_region_memory_view_is_the_memory_itself(memory: RegionMemory, mapper: FakeMapper) -> None:
    """A change to either is a change to both."""
    view = memory.view(0x100, 2)

    mapper.files[100][0x100] = 7
    view[1] = 8

    assert list(view) == [7, 8]
    assert mapper.files[100][0x101] == 8


@pytest.mark.parametrize("last", [0, 0x10_0000])
@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0x1000, 1),
        (0xFFF, 2),
        (0x0F_FFFF, 1),
        (0x0F_FFFF, 2),
        (0x10_2000, 1),
        (0x10_0000, 0x2001),
        (0, 1 << 64),
        ((1 << 64) - 1, 2),
        (-1, 1),
        (0, -1),
        (0x10_0000, -1),
        (5, -5),
    ],
)
def test_region_memory_outside_is_refused(memory: RegionMemory, last: int, address: int, length: int) -> None:
    """Whichever region was used before."""
    memory.read(last, 1)
    with pytest.raises(MemoryRangeError):
        memory.view(address, length)
    with pytest.raises(MemoryRangeError):
        memory.read(address, length)


def test_region_memory_write_across_the_end_writes_nothing(memory: RegionMemory, mapper: FakeMapper) -> None:
    """All or nothing; the file goes on behind the region."""
    before = bytes(mapper.files[100])
    with pytest.raises(MemoryRangeError):
        memory.write(0x10_1FFF, b"ab")
    with pytest.raises(MemoryRangeError):
        memory.write(0xFFF, b"ab")
    assert bytes(mapper.files[100]) == before


def test_region_memory_adjacent_regions_are_separate(mapper: FakeMapper) -> None:
    """A buffer in both is refused; each is reached alone."""
    memory = RegionMemory(mapper)
    memory.set_table([LOW, NEXT_TO_LOW], [100, 101])

    assert memory.read(0xFFF, 1) + memory.read(0x1000, 1) == bytes(2)
    with pytest.raises(MemoryRangeError):
        memory.read(0xFFF, 2)


def test_region_memory_without_regions_has_nothing(mapper: FakeMapper) -> None:
    """Not even an empty range."""
    memory = RegionMemory(mapper)

    assert memory.regions == ()
    with pytest.raises(MemoryRangeError):
        memory.read(0, 0)
    with pytest.raises(MemoryRangeError):
        memory.write(0, b"")
    with pytest.raises(MemoryRangeError):
        memory.translate_user(0, 0)


def test_region_memory_ends_with_the_address_space(mapper: FakeMapper) -> None:
    """The last byte is reached, and none behind it."""
    memory = RegionMemory(mapper)
    memory.set_table([TOP], [100])

    assert memory.read((1 << 64) - 1, 1) == b"\0"
    with pytest.raises(MemoryRangeError):
        memory.read((1 << 64) - 1, 2)


def test_region_memory_translates_addresses_of_the_front_end(memory: RegionMemory) -> None:
    """Regions may be in another order there."""
    assert memory.translate_user(0x7000_0FFF, 1) == 0xFFF
    assert memory.translate_user(0x7000_1000, 0x2000) == 0x10_0000
    with pytest.raises(MemoryRangeError):
        memory.translate_user(0x7000_0FFF, 2)
    with pytest.raises(MemoryRangeError):
        memory.translate_user(0x6FFF_FFFF, 1)
    with pytest.raises(MemoryRangeError):
        memory.translate_user(0x7000_0000, -1)


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([LOW._replace(size_bytes=0)], "region-empty"),
        ([LOW._replace(guest_address=(1 << 64) - 0xFFF)], "region-wraps"),
        ([LOW._replace(user_address=(1 << 64) - 0xFFF)], "region-wraps"),
        ([LOW._replace(file_offset=(1 << 64) - 0xFFF)], "region-wraps"),
        ([LOW._replace(size_bytes=(1 << 64) - 1), HIGH], "region-wraps"),
        ([LOW, HIGH._replace(guest_address=0xFFF)], "region-overlap"),
        ([LOW, HIGH._replace(user_address=0x7000_0FFF)], "region-overlap"),
        ([HIGH, HIGH], "region-overlap"),
        ([LOW._replace(guest_address=n << 20, user_address=n << 20) for n in range(MAX_SLOTS + 1)], "region-slots"),
    ],
)
def test_region_memory_table_that_cannot_be_leaves_the_old(
    memory: RegionMemory, regions: list[Region], reason: str
) -> None:
    """Nothing of it is taken."""
    with pytest.raises(RegionError) as caught:
        memory.set_table(regions, [100] * len(regions))
    assert caught.value.reason == reason
    assert memory.regions == (LOW, HIGH)


def test_region_memory_file_that_cannot_be_mapped_leaves_the_old(memory: RegionMemory) -> None:
    """Neither a table with it nor an addition of it changes anything."""
    with pytest.raises(MappingError):
        memory.set_table([LOW, TOP], [100, BAD_FD])
    with pytest.raises(MappingError):
        memory.add(TOP, BAD_FD)
    assert memory.regions == (LOW, HIGH)


def test_region_memory_adds_and_removes(memory: RegionMemory) -> None:
    """The file offset does not matter for the removal."""
    memory.add(TOP, 101)
    memory.remove(LOW._replace(file_offset=77))

    assert memory.regions == (HIGH, TOP)
    with pytest.raises(MemoryRangeError):
        memory.read(0, 1)


@pytest.mark.parametrize(
    "region", [TOP, LOW._replace(size_bytes=0xFFF), LOW._replace(guest_address=1), LOW._replace(user_address=0)]
)
def test_region_memory_unknown_region_is_not_removed(memory: RegionMemory, region: Region) -> None:
    """Addresses and size must be those of a region."""
    with pytest.raises(RegionError) as caught:
        memory.remove(region)
    assert caught.value.reason == "region-unknown"
    assert memory.regions == (LOW, HIGH)


def test_region_memory_addition_that_overlaps_is_refused(memory: RegionMemory) -> None:
    """As in a table."""
    with pytest.raises(RegionError) as caught:
        memory.add(Region(0xFFF, 2, 0, 0), 101)
    assert caught.value.reason == "region-overlap"


def test_region_memory_holds_as_many_as_there_are_slots(mapper: FakeMapper) -> None:
    """And not one more."""
    memory = RegionMemory(mapper, slots=2)
    memory.add(LOW, 100)
    memory.add(HIGH, 100)
    with pytest.raises(RegionError) as caught:
        memory.add(TOP, 100)
    assert caught.value.reason == "region-slots"


def test_region_memory_view_outlives_its_region(memory: RegionMemory) -> None:
    """A ring that is being stopped may still be written; nobody new reaches it."""
    view = memory.view(0, 4)

    memory.clear()
    view[:] = b"last"

    assert bytes(view) == b"last"
    with pytest.raises(MemoryRangeError):
        memory.view(0, 4)
