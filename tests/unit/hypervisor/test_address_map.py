"""Ranges of ports and addresses."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.address_map import AddressMap, Space
from tests.unit.hypervisor.devices import Memory, Strings


def mapped() -> AddressMap:
    """Two neighbours in the port space."""
    address_map = AddressMap("alice")
    address_map.add(Space.PORT, 0x108, 8, Memory(8), "upper")
    address_map.add(Space.PORT, 0x100, 8, Memory(8), "lower")
    return address_map


@pytest.mark.parametrize(
    ("address", "name"),
    [(0xFF, ""), (0x100, "lower"), (0x107, "lower"), (0x108, "upper"), (0x10F, "upper"), (0x110, "")],
)
def test_find_at_the_ends_of_ranges(address: int, name: str) -> None:
    """First and last address belong to a range, those around it do not."""
    found = mapped().find(Space.PORT, address)

    assert (found.name if found else "") == name


def test_find_in_the_other_space_finds_nothing() -> None:
    """A port is no address."""
    assert mapped().find(Space.MEMORY, 0x100) is None


def test_ranges_are_in_ascending_order() -> None:
    """Whatever the order in which they were added."""
    assert [str(entry) for entry in mapped().ranges(Space.PORT)] == ["lower at 0x100-0x107", "upper at 0x108-0x10f"]


@pytest.mark.parametrize(("base", "size"), [(0x100, 8), (0xFF, 2), (0x107, 1), (0x102, 2), (0xF0, 0x100)])
def test_overlap_is_refused_and_both_are_named(base: int, size: int) -> None:
    """Equal, over the start, at the end, inside and around."""
    address_map = mapped()

    with pytest.raises(ConfigError, match=r"alice: new at .* overlaps lower at 0x100-0x107; move or remove"):
        address_map.add(Space.PORT, base, size, Memory(size), "new")

    assert len(address_map.ranges(Space.PORT)) == 2


def test_overlap_with_the_range_above_is_refused() -> None:
    """The new range starts in a gap and reaches into its upper neighbour."""
    address_map = AddressMap()
    address_map.add(Space.MEMORY, 0x2000, 0x1000, Memory(0x1000), "upper")

    with pytest.raises(ConfigError, match="new at 0x1000-0x2000 overlaps upper"):
        address_map.add(Space.MEMORY, 0x1000, 0x1001, Memory(1), "new")


@pytest.mark.parametrize(("base", "size"), [(0x10, 0), (0x10, -1), (-1, 4)])
def test_empty_or_negative_range_is_refused(base: int, size: int) -> None:
    """Nobody could ever find it."""
    with pytest.raises(ConfigError, match="empty or negative"):
        AddressMap().add(Space.PORT, base, size, Memory(1), "new")


def test_range_knows_whether_its_device_takes_strings() -> None:
    """Asked once, not at every access."""
    address_map = AddressMap()
    address_map.add(Space.PORT, 0, 8, Strings(8), "strings")
    address_map.add(Space.PORT, 8, 8, Memory(8), "plain")

    assert [entry.strings is entry.device for entry in address_map.ranges(Space.PORT)] == [True, False]
