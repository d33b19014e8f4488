"""Following files that others write, truncate and replace."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from iovirt_dist.cli.tail import MAX_LINE_BYTES, ByteTail, LinePrinter, LineTail, LogLine, clean_line, last_lines


@pytest.mark.parametrize(("history_bytes", "seen"), [(0, b""), (3, b"def"), (99, b"abcdef"), (None, b"abcdef")])
def test_byte_tail_begins_with_the_history_asked_for(tmp_path: Path, history_bytes: int | None, seen: bytes) -> None:
    """None is all, more than there is is all."""
    path = tmp_path / "log"
    path.write_bytes(b"abcdef")
    with closing(ByteTail(path, history_bytes)) as tail:
        assert tail.read() == seen


def test_byte_tail_waits_for_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file made later is read from its start."""
    with closing(ByteTail(tmp_path / "log")) as tail:
        before = tail.read()
        (tmp_path / "log").write_bytes(b"new")
        assert (before, tail.read()) == (b"", b"new")


def test_byte_tail_reads_the_old_file_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    """Rotation loses nothing."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    with closing(ByteTail(path)) as tail:
        path.write_bytes(b"last")
        path.rename(tmp_path / "log.1")
        path.write_bytes(b"first")
        assert [tail.read(), tail.read(), tail.read(), tail.read()] == [b"last", b"", b"first", b""]


def test_byte_tail_starts_over_after_truncation(tmp_path: Path) -> None:
    """A shorter file is a new one."""
    path = tmp_path / "log"
    path.write_bytes(b"long text")
    with closing(ByteTail(path)) as tail:
        path.write_bytes(b"new")
        assert [tail.read(), tail.read()] == [b"", b"new"]


def test_line_tail_gives_complete_lines_only(tmp_path: Path) -> None:
    """Half a line waits for its other half."""
    path = tmp_path / "hv0.log"
    path.write_bytes(b"old\n")
    with closing(LineTail({"hv0": path})) as tail, path.open("ab") as file:
        file.write(b"hv0: one\ntw")
        file.flush()
        first = tail.read()
        file.write(b"o\n")
        file.flush()
        assert first == [LogLine("hv0", "one")]
        assert tail.read() == [LogLine("hv0", "two")]


def test_line_tail_breaks_endless_lines(tmp_path: Path) -> None:
    """A process that never ends its line does not fill our memory."""
    path = tmp_path / "a.log"
    with closing(LineTail({"a": path})) as tail:
        path.write_bytes(b"x" * (2 * MAX_LINE_BYTES + 10))
        assert sum(len(line.text) for line in tail.read()) == 2 * MAX_LINE_BYTES


@pytest.mark.parametrize(("count", "lines"), [(0, []), (1, [b"c"]), (2, [b"b", b"c"]), (9, [b"a", b"b", b"c"])])
def test_last_lines_gives_the_end(tmp_path: Path, count: int, lines: list[bytes]) -> None:
    """As tail(1) does."""
    (tmp_path / "log").write_bytes(b"a\nb\nc\n")
    assert last_lines(tmp_path / "log", count) == lines


def test_last_lines_reads_long_files_backwards(tmp_path: Path) -> None:
    """The end is found across block borders."""
    (tmp_path / "log").write_bytes(b"".join(b"%06d\n" % number for number in range(30_000)))
    assert last_lines(tmp_path / "log", 20_000)[0] == b"010000"


def test_last_lines_of_an_absent_file_are_none(tmp_path: Path) -> None:
    """A process that never ran has no log."""
    assert last_lines(tmp_path / "log", 5) == []


def test_clean_line_drops_prefix_and_control_characters() -> None:
    """The name stands in front of the line already."""
    assert clean_line("hv0", b"hv0: \x1b[31mred\xff\r\n") == ("hv0", "�[31mred�")


def test_line_printer_aligns_names() -> None:
    """Without colours a line is plain text."""
    assert LinePrinter(["hv0", "disk0"], colour=False).format(LogLine("hv0", "x")) == "hv0   | x"


def test_line_printer_colours_names_only() -> None:
    """The text stays as it is."""
    assert LinePrinter(["hv0"], colour=True).format(LogLine("hv0", "x")) == "\x1b[36mhv0 |\x1b[0m x"
