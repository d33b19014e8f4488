"""What commands print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iovirt_dist.cli.output import fail, format_age, print_json, print_table, printable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (59, "59s"), (192, "3m12s"), (18420, "5h07m"), (183600, "2d03h")],
)
def test_format_age_uses_two_units_at_most(seconds: float, text: str) -> None:
    """Ages are read at a glance."""
    assert format_age(seconds) == text


def test_print_json_writes_paths_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """One object on stdout."""
    print_json({"path": Path("/a"), "n": 1})
    assert json.loads(capsys.readouterr().out) == {"path": "/a", "n": 1}


def test_fail_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Even if the text has line feeds."""
    fail("a\nb")
    assert capsys.readouterr() == ("", "iovirt: error: a b\n")


def test_print_table_takes_cells_literally(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are no markup."""
    print_table(("A",), [("[red]x",)])
    assert "[red]x" in capsys.readouterr().out


def test_print_table_into_a_pipe_honours_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it a pipe gets all of a line."""
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("A",), [("x" * 100,)])
    narrow = capsys.readouterr().out
    monkeypatch.delenv("COLUMNS")
    print_table(("A",), [("x" * 100,)])
    assert max(map(len, narrow.splitlines())) == 40
    assert "x" * 100 in capsys.readouterr().out


def test_printable_replaces_escape_sequences() -> None:
    """A guest cannot steer the terminal through a log line."""
    assert printable("a\x1b[2J\tb\u202e") == "a�[2J\tb�"
