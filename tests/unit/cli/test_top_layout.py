"""Tables that leave out what does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.cli.top_layout import Column, figure, fit, lay_out, mebibytes, percent

COLUMNS = (
    Column[tuple[str, int]]("NAME", 0, lambda row: row[0], left=True),
    Column[tuple[str, int]]("COUNT", 0, lambda row: str(row[1]), 6),
    Column[tuple[str, int]]("TWICE", 2, lambda row: str(2 * row[1])),
    Column[tuple[str, int]]("THRICE", 1, lambda row: str(3 * row[1])),
)


def test_table_is_aligned() -> None:
    """Text on the left, figures on the right."""
    assert [line.text for line in lay_out(COLUMNS, [("alice", 1), ("bob", 22)], 80)] == [
        "NAME   COUNT TWICE THRICE",
        "alice      1     2      3",
        "bob       22    44     66",
    ]


def test_table_leaves_out_by_priority() -> None:
    """The highest number goes first, 0 stays."""
    widths = (25, 24, 19, 18, 12, 11)
    assert [lay_out(COLUMNS, [("alice", 1)], width)[0].text for width in widths] == [
        "NAME   COUNT TWICE THRICE",
        "NAME   COUNT THRICE",
        "NAME   COUNT THRICE",
        "NAME   COUNT",
        "NAME   COUNT",
        "NAME   COUN",
    ]


def test_long_name_is_cut() -> None:
    """It must not push out the figures."""
    assert lay_out(COLUMNS, [("a" * 63, 1)], 80)[1].text == f"{'a' * 23}…      1     2      3"


def test_table_without_rows_is_its_head() -> None:
    """Nothing to be as wide as."""
    assert [line.text for line in lay_out(COLUMNS, [], 80)] == ["NAME COUNT TWICE THRICE"]


def test_rows_have_a_style() -> None:
    """Trouble is red."""
    lines = lay_out(COLUMNS, [("a", 1), ("b", 2)], 80, lambda row: "red" if row[0] == "b" else "")
    assert [line.style for line in lines] == ["bold", "", "red"]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9)), min_size=1, max_size=20), st.integers(1, 200))
def test_fit_keeps_the_most_important_columns_that_fit(columns: list[tuple[int, int]], room: int) -> None:
    """All that stay fit unless they must stay; of what went, nothing was more important than what stayed."""
    widths, priorities = [width for width, _ in columns], [priority for _, priority in columns]

    kept = fit(widths, priorities, room)

    gone = [at for at in range(len(columns)) if at not in kept]
    assert kept == sorted(kept)
    assert all(priorities[at] for at in gone)
    assert all(priorities[there] <= priorities[at] for at in gone for there in kept)
    assert sum(widths[at] for at in kept) + len(kept) - 1 <= room or not any(priorities[at] for at in kept)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.04, "0.0"), (3.21, "3.2"), (99.94, "99.9"), (99.95, "100"), (4711.4, "4711"),
        (99_999.4, "99999"), (99_999.5, "100k"), (1_540_000, "1.5M"), (123_400_000, "123M"), (2.5e9, "2.5G"),
    ],
)  # fmt: skip
def test_figure_takes_six_characters(value: float | None, text: str) -> None:
    """As many digits as say something."""
    assert figure(value) == text
    assert len(text) <= 6


def test_bytes_and_parts_are_written_short() -> None:
    """MiB and per cent."""
    assert (mebibytes(None), mebibytes(1 << 20), mebibytes(1 << 30)) == ("-", "1.0", "1024")
    assert (percent(None), percent(0.333), percent(1)) == ("-", "33%", "100%")
