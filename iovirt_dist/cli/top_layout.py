"""Tables of fixed columns that leave out what does not fit, by priority. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from iovirt_dist.cli.output import printable

Row = TypeVar("Row")

NAME_WIDTH: Final = 24
"""Longer texts are cut: one long name must not push out the figures."""

_UNITS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_MIB: Final = 1 << 20


class Line(NamedTuple):
    """A line of output; `style` is one of rich's, empty for none."""

    text: str
    style: str = ""


class Column(NamedTuple, Generic[Row]):
    """A column.

    Attributes:
        title: Its head.
        priority: 0 for a column that always stays; of others, the highest number goes first.
        cell: Writes a row's cell.
        width: Least width, so that a table does not jump while figures change.
        left: Whether cells are text, which stands on the left.
    """

    title: str
    priority: int
    cell: Callable[[Row], str]
    width: int = 0
    left: bool = False


def fit(widths: Sequence[int], priorities: Sequence[int], room: int) -> list[int]:
    """Choose the columns that fit.

    Args:
        widths: Of the columns; there is a space between two.
        priorities: Of the columns, 0 for those that always stay.
        room: Width of the line.

    Returns:
        Their indexes, in order.
    """
    kept = list(range(len(widths)))
    by_need = sorted((at for at in kept if priorities[at]), key=lambda at: (-priorities[at], -at))
    for at in by_need:
        if sum(widths[index] for index in kept) + len(kept) - 1 <= room:
            break
        kept.remove(at)
    return kept


def lay_out(
    columns: Sequence[Column[Row]], rows: Sequence[Row], room: int, style: Callable[[Row], str] = lambda _: ""
) -> list[Line]:
    """Write a table: its head and a line for each row, none of them longer than `room`."""
    cells = [[_cut(column.cell(row)) for column in columns] for row in rows]
    widths = [
        max(len(column.title), column.width, *(len(line[at]) for line in cells)) if cells else len(column.title)
        for at, column in enumerate(columns)
    ]
    kept = fit(widths, [column.priority for column in columns], room)

    def join(texts: Sequence[str]) -> str:
        shown = [f"{texts[at]:<{widths[at]}}" if columns[at].left else f"{texts[at]:>{widths[at]}}" for at in kept]
        return " ".join(shown)[:room].rstrip()

    head = Line(join([column.title for column in columns]), "bold")
    return [head, *(Line(join(line), style(row)) for line, row in zip(cells, rows, strict=True))]


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= NAME_WIDTH else f"{text[: NAME_WIDTH - 1]}…"


def figure(value: float | None) -> str:
    """Write a rate in at most six characters: ``-``, ``0``, ``3.2``, ``4711``, ``123k``, ``1.5M``."""
    if value is None:
        return "-"
    if value < 99_999.5:
        return f"{value:.1f}" if 0 < value < 99.95 else f"{value:.0f}"
    scale, unit = next((scale, unit) for scale, unit in _UNITS if value >= scale)
    scaled = value / scale
    return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"


def mebibytes(value: float | None) -> str:
    """Write bytes as MiB."""
    return "-" if value is None else figure(value / _MIB)


def percent(part: float | None) -> str:
    """Write a part of 1."""
    return "-" if part is None else f"{100 * part:.0f}%"
