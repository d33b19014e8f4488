"""What the journal tells of the last write, whenever the writer ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.controllers.console.journal import WriteJournal
from iovirt_dist.controllers.console.terminal import PtyTerminal
from iovirt_dist.controllers.console.written import MAX_PARTS, NOTHING_WRITTEN, Part, Written, owner_of

OWNER = owner_of("hv", 7)
ONE, TWO = b"1" * 16, b"2" * 16
PARTS = (Part(ONE, 0, 5), Part(TWO, 10, 3))
INODE = 42


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal is."""
    return tmp_path / "alice.written"


@pytest.fixture
def journal(path: Path) -> Iterator[WriteJournal]:
    """One that announced two commands' data behind byte 100."""
    made = WriteJournal(path)
    made.announce(OWNER, PARTS, INODE, 100)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("log_bytes", "one", "two"), [(100, 0, 10), (103, 3, 10), (105, 5, 10), (107, 5, 12), (108, 5, 13), (900, 5, 13)]
)
def test_length_of_the_log_tells_how_far_the_write_went(
    journal: WriteJournal, log_bytes: int, one: int, two: int
) -> None:
    """Byte by byte; what was there before this life counts."""
    assert journal.written(INODE, log_bytes) == Written(OWNER, {ONE: one, TWO: two})


def test_write_to_a_log_that_was_rotated_away_was_whole(journal: WriteJournal) -> None:
    """A new log is begun for the next write only."""
    assert journal.written(INODE + 1, 0) == Written(OWNER, {ONE: 5, TWO: 13})


def test_log_that_is_shorter_than_it_was_tells_nothing(journal: WriteJournal) -> None:
    """Somebody has emptied it: better printed twice than never."""
    assert journal.written(INODE, 99) == NOTHING_WRITTEN


def test_journal_of_a_new_terminal_tells_nothing(path: Path) -> None:
    """No record was written yet."""
    fresh = WriteJournal(path)

    assert fresh.written(INODE, 0) == NOTHING_WRITTEN
    fresh.close()


@pytest.mark.parametrize("at", [0, 3, 4, 8, 30, 60, 100])
def test_torn_record_tells_nothing(journal: WriteJournal, path: Path, at: int) -> None:
    """Wherever it is damaged, or cut."""
    record = path.read_bytes()
    path.write_bytes(record[:at] + bytes([record[at] ^ 0x55]) + record[at + 1 :])
    damaged = journal.written(INODE, 108)
    path.write_bytes(record[:at])
    cut = journal.written(INODE, 108)

    assert (damaged, cut) == (NOTHING_WRITTEN, NOTHING_WRITTEN)


def test_record_is_replaced_by_the_next_whatever_their_lengths(journal: WriteJournal) -> None:
    """The rest of a longer one behind it does not matter."""
    most = [Part(bytes([number]) * 16, 0, 1) for number in range(MAX_PARTS)]
    journal.announce(OWNER, most, INODE, 108)
    journal.announce(OWNER, PARTS[:1], INODE, 200)

    assert journal.written(INODE, 205) == Written(OWNER, {ONE: 5})


def test_terminal_tells_its_next_life_what_it_wrote(tmp_path: Path) -> None:
    """Over a rotation of its log, too."""
    first = PtyTerminal(tmp_path, "alice", 10)
    first.write(b"12345", OWNER, PARTS[:1])
    first.write(b"6789ab", OWNER, [Part(TWO, 0, 6)])
    first.close()

    second = PtyTerminal(tmp_path, "alice", 10)
    second.close()

    assert first.written == NOTHING_WRITTEN
    assert second.written == Written(OWNER, {TWO: 6})
