"""Tests of the extent that follows the end of its image."""

from __future__ import annotations

import pytest

from iovirt_dist.topology.extent import ExtentSpec, follow_image, growing

MIB = 1 << 20


def extent(name: str, offset: int, size: int, *, read_only: bool = False) -> ExtentSpec:
    """An extent, in MiB."""
    return ExtentSpec(name=name, offset_bytes=offset * MIB, size_bytes=size * MIB, read_only=read_only)


def test_extent_at_the_configured_end_reaches_to_the_end_of_a_longer_image() -> None:
    """The others stay as they are."""
    first, last = extent("os", 0, 1), extent("data", 1, 3)

    followed = follow_image([first, last], 4 * MIB, 9 * MIB)

    assert followed == (first, extent("data", 1, 8))


@pytest.mark.parametrize("image", [0, 4 * MIB])
def test_image_as_configured_or_absent_changes_nothing(image: int) -> None:
    """A shorter one is refused elsewhere."""
    assert follow_image([extent("all", 0, 4)], 4 * MIB, image) == (extent("all", 0, 4),)


@pytest.mark.parametrize(
    ("extents", "fixed"),
    [
        ([extent("all", 0, 4, read_only=True)], ()),
        ([extent("all", 0, 4)], ("all",)),
        ([extent("front", 0, 3)], ()),
        ([extent("a", 0, 4, read_only=True), extent("b", 2, 2, read_only=True)], ()),
    ],
)
def test_extent_that_must_stay_as_it_is_does_not_grow(extents: list[ExtentSpec], fixed: tuple[str, ...]) -> None:
    """Read-only, below overlays, not at the end, or not the only one there."""
    assert growing(extents, 4 * MIB, fixed) is None
    assert follow_image(extents, 4 * MIB, 9 * MIB, fixed) == tuple(extents)
