"""Sizes and durations: accepted spellings, refused ones."""

from __future__ import annotations

import pytest

from iovirt_dist.topology.units import format_size, parse_duration_ns, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [(512, 512), ("512", 512), ("1KiB", 1024), ("1.5 GiB", 3 << 29), ("16MiB", 16 << 20), ("7B", 7), ("0", 0)],
)
def test_size_valid_gives_bytes(text: str | int, size_bytes: int) -> None:
    """IEC units, fractions of them and bare byte counts are sizes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "16MB", "16 mib", "-1", "1.0001KiB", "0x10", "9223372036854775808", -5, "٣"])
def test_size_invalid_raises(text: str | int) -> None:
    """Ambiguous units, negative, partial and over-long numbers are refused, not guessed."""
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "duration_ns"), [("2s", 2 * 10**9), ("500ms", 5 * 10**8), ("1.5 min", 90 * 10**9)])
def test_duration_valid_gives_nanoseconds(text: str, duration_ns: int) -> None:
    """A duration is a number with a unit."""
    assert parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize("text", ["2", "2h", "-2s", "s"])
def test_duration_invalid_raises(text: str) -> None:
    """A bare number has no unit, so it is refused."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(16 << 20, "16MiB"), (1536 << 10, "1536KiB"), (513, "513B"), (0, "0B")]
)
def test_format_size_uses_the_largest_exact_unit(size_bytes: int, text: str) -> None:
    """What is printed can be parsed back to the same number."""
    assert format_size(size_bytes) == text
    assert parse_size(text) == size_bytes
