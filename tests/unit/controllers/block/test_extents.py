"""The table of extents."""

from __future__ import annotations

import pytest

from iovirt_dist.controllers.block.extents import Extent, ExtentTable
from iovirt_dist.errors import ConfigError
from iovirt_dist.wire.commands import UnitIdentity

IMAGE_BYTES = 1 << 20


def test_table_numbers_extents_in_their_order() -> None:
    """The place in the configuration is the unit number."""
    table = ExtentTable([Extent("b", 65536, 65536), Extent("a", 0, 65536, read_only=True)], IMAGE_BYTES)

    first, second = table.find(b"b"), table.find(b"a")

    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert UnitIdentity.unpack(first.identity) == UnitIdentity(65536, 512, False, "b")
    assert UnitIdentity.unpack(second.identity) == UnitIdentity(65536, 512, True, "a")


def test_extent_without_size_reaches_the_end_of_the_image() -> None:
    """The rest of the image is the extent."""
    table = ExtentTable([Extent("rest", 4096)], IMAGE_BYTES)

    assert table.units[0].size_bytes == IMAGE_BYTES - 4096


def test_extent_with_a_long_name_has_its_start_as_serial() -> None:
    """A serial number has 20 characters."""
    table = ExtentTable([Extent("abcdefghijklmnopqrstuvwxyz")], IMAGE_BYTES)

    assert UnitIdentity.unpack(table.units[0].identity).serial == "abcdefghijklmnopqrst"


@pytest.mark.parametrize("name", [b"", b"c", b"\xff", b"a\0", b"a" * 5000])
def test_find_of_an_unknown_or_malformed_name_gives_none(name: bytes) -> None:
    """A peer may ask for anything."""
    assert ExtentTable([Extent("a")], IMAGE_BYTES).find(name) is None


@pytest.mark.parametrize(
    ("extents", "words"),
    [
        ([Extent("a", 0, 8192), Extent("b", 4096, 8192)], ["'a'", "bytes 0..8191", "'b'", "bytes 4096..12287"]),
        ([Extent("a", 0, 8192, read_only=True), Extent("b", 0, 512)], ["'a'", "'b'", "overlap"]),
        ([Extent("w", 0, 8192), Extent("r", 512, 512, read_only=True), Extent("s", 4096, 512, True)], ["'w'", "'r'"]),
        ([Extent("r", 0, 65536, True), Extent("s", 0, 512, True), Extent("w", 4096, 512)], ["'r'", "'w'"]),
        ([Extent("a", 0, 512), Extent("a", 512, 512)], ["'a'", "twice"]),
        ([Extent("a", 0, IMAGE_BYTES + 512)], ["a:", "not inside the image"]),
        ([Extent("a", IMAGE_BYTES)], ["not inside"]),
        ([Extent("a", -512, 1024)], ["not inside"]),
        ([Extent("a", 0, 0)], ["not inside"]),
        ([Extent("a", 100, 512)], ["multiples of 512"]),
        ([Extent("a", 0, 1000)], ["multiples of 512"]),
        ([Extent("ä", 0, 512)], ["bad extent name"]),
        ([Extent("a\n", 0, 512)], ["bad extent name"]),
        ([], ["0 extents"]),
    ],
)
def test_table_that_cannot_be_is_refused_with_names(extents: list[Extent], words: list[str]) -> None:
    """Overlaps name both extents, everything else names the one."""
    with pytest.raises(ConfigError) as caught:
        ExtentTable(extents, IMAGE_BYTES, "disk0.extents")

    assert [word for word in words if word not in str(caught.value)] == []
    assert str(caught.value).startswith("disk0.extents")


def test_extents_that_overlap_read_only_or_touch_are_accepted() -> None:
    """Sharing what nobody writes is fine, and so are neighbours."""
    extents = [Extent("r", 0, 4096, True), Extent("s", 512, 8192, True), Extent("w", 8704, 512), Extent("v", 9216, 512)]

    assert len(ExtentTable(extents, IMAGE_BYTES).units) == 4


def test_extent_at_the_images_end_grows_with_it() -> None:
    """Its number stays; the others stay as they are."""
    table = ExtentTable([Extent("os", 0, 65536), Extent("rest", 65536)], IMAGE_BYTES)

    grown = [table.grow(2 * IMAGE_BYTES), table.grow(3 * IMAGE_BYTES)]
    unit = table.find(b"rest")

    assert grown == [True, True]
    assert unit is table.units[1]
    assert (unit.number, unit.size_bytes) == (1, 3 * IMAGE_BYTES - 65536)
    assert UnitIdentity.unpack(unit.identity).size_bytes == 3 * IMAGE_BYTES - 65536
    assert table.units[0].size_bytes == 65536


@pytest.mark.parametrize(
    "extents",
    [
        [Extent("all", read_only=True)],
        [Extent("front", 0, 65536)],
        [Extent("a", read_only=True), Extent("b", 65536, read_only=True)],
    ],
)
def test_extents_that_cannot_follow_the_image_stay(extents: list[Extent]) -> None:
    """Read-only, not at the end, or several there."""
    table = ExtentTable(extents, IMAGE_BYTES)

    assert not table.grow(2 * IMAGE_BYTES)


def test_extent_below_an_overlay_does_not_grow() -> None:
    """Whose base it is has its size."""
    table = ExtentTable([Extent("all")], IMAGE_BYTES)
    table.protect_base("all@guest")

    assert not table.grow(2 * IMAGE_BYTES)
