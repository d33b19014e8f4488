"""Log files and pseudo-terminals."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iovirt_dist.controllers.console.terminal import PtyTerminal, remove_stale_links

Make = Callable[..., PtyTerminal]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes terminals that are closed at the end."""
    made: list[PtyTerminal] = []

    def make_terminal(name: str = "alice", **arguments: int) -> PtyTerminal:
        made.append(PtyTerminal(tmp_path, name, **arguments))
        return made[-1]

    yield make_terminal
    for terminal in made:
        terminal.close()


@pytest.fixture
def attach(make: Make) -> Iterator[Callable[[PtyTerminal], int]]:
    """Opens a terminal's link as a person's program does."""
    opened: list[int] = []

    def attach_to(terminal: PtyTerminal) -> int:
        opened.append(os.open(terminal.tty_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        return opened[-1]

    yield attach_to
    for fd in opened:
        os.close(fd)


def _gather(read: Callable[[int], bytes], fd: int, count: int) -> bytes:
    """Read this many bytes: the kernel hands pseudo-terminal data over in the background, in pieces as it likes."""
    data = b""
    while len(data) < count and select.select([fd], [], [], 10)[0]:
        data += read(count - len(data))
    return data


def test_output_is_in_the_log_when_write_returns(make: Make) -> None:
    """Every byte, as it is, nothing buffered."""
    terminal = make()

    terminal.write(b"\x00\xff\r\nhello")
    terminal.write(b" world")

    assert terminal.log_path.read_bytes() == b"\x00\xff\r\nhello world"
    assert terminal.log_path.stat().st_mode & 0o777 == 0o600


def test_log_is_continued_by_the_next_life(tmp_path: Path) -> None:
    """A restart of the controller loses no output."""
    for text in (b"first ", b"second"):
        terminal = PtyTerminal(tmp_path, "alice")
        terminal.write(text)
        terminal.close()

    assert (tmp_path / "alice.log").read_bytes() == b"first second"


def test_log_that_would_exceed_its_limit_is_rotated_once(make: Make) -> None:
    """The old log keeps everything before; the one before that is gone."""
    terminal = make(log_limit_bytes=10)

    for text in (b"aaaaaa", b"bbbbbb", b"cccc", b"dddddddddddd"):
        terminal.write(text)

    assert terminal.log_path.read_bytes() == b"dddddddddddd"
    assert terminal.log_path.with_name("alice.log.1").read_bytes() == b"bbbbbbcccc"


def test_log_that_somebody_removed_begins_anew_when_it_is_rotated(make: Make) -> None:
    """There is nothing to keep; output goes on."""
    terminal = make(log_limit_bytes=10)
    terminal.write(b"aaaaaa")
    terminal.log_path.unlink()

    terminal.write(b"bbbbbb")
    terminal.write(b"cc")

    assert terminal.log_path.read_bytes() == b"bbbbbbcc"


def test_log_that_could_not_be_rotated_is_written_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old log has its new name already when no descriptor is left for the new one."""
    terminal = make(log_limit_bytes=10)
    terminal.write(b"aaaaaa")

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            terminal.write(b"bbbbbb")
    terminal.write(b"cccccc")

    assert terminal.log_path.read_bytes() == b"cccccc"
    assert terminal.log_path.with_name("alice.log.1").read_bytes() == b"aaaaaa"


def test_follower_of_a_rotated_log_finds_every_byte(make: Make) -> None:
    """The file that it has open holds the end of the old log, the name leads to the new one."""
    terminal = make(log_limit_bytes=4)
    terminal.write(b"one")
    with terminal.log_path.open("rb") as follower:
        start = follower.read()
        terminal.write(b"two")

        assert start + follower.read() + terminal.log_path.read_bytes() == b"onetwo"


def test_output_appears_on_the_pseudo_terminal_unchanged(make: Make, attach: Callable[[PtyTerminal], int]) -> None:
    """Raw mode: no newline translation, no echo back as input."""
    terminal = make()
    person = attach(terminal)

    terminal.write(b"login:\n\x03")

    assert _gather(lambda limit: os.read(person, limit), person, 8) == b"login:\n\x03"
    assert terminal.read(100) == b""


def test_typed_bytes_are_read_unchanged_and_not_echoed(make: Make, attach: Callable[[PtyTerminal], int]) -> None:
    """No line editing, no signals; at most what was asked for."""
    terminal = make()
    person = attach(terminal)

    os.write(person, b"\x03\r\x7fab")

    assert _gather(terminal.read, terminal.fileno(), 3) == b"\x03\r\x7f"
    assert _gather(terminal.read, terminal.fileno(), 2) == b"ab"
    assert terminal.read(100) == b""


def test_terminal_survives_people_coming_and_going(make: Make) -> None:
    """No hang-up and no error when the last one has left."""
    terminal = make()
    for text in (b"a", b"b"):
        person = os.open(terminal.tty_path, os.O_RDWR | os.O_NOCTTY)
        os.write(person, text)
        os.close(person)

    assert _gather(terminal.read, terminal.fileno(), 2) == b"ab"
    assert terminal.read(100) == b""


def test_output_that_nobody_reads_is_dropped_from_the_pseudo_terminal_only(make: Make) -> None:
    """The guest is not held up; the log has everything."""
    terminal = make()

    for _ in range(64):
        terminal.write(b"x" * 4096)

    assert terminal.log_path.stat().st_size == 64 * 4096
    assert 0 < terminal.dropped_bytes < 64 * 4096


def test_output_to_a_full_disk_raises(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """/dev/full is a log that takes nothing."""
    (tmp_path / "full.log").symlink_to("/dev/full")
    terminal = make("full")

    with pytest.raises(OSError, match="No space"):
        terminal.write(b"lost")


def test_link_replaces_a_stale_one_and_goes_at_close(tmp_path: Path) -> None:
    """What a killed controller left does not stay in the way."""
    (tmp_path / "alice.tty").symlink_to("/dev/pts/99999")

    terminal = PtyTerminal(tmp_path, "alice")
    device = terminal.tty_path.readlink()
    terminal.close()

    assert str(device) != "/dev/pts/99999"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.log", "alice.written"]


def test_close_leaves_a_link_that_is_another_s(make: Make) -> None:
    """Only our own link is removed."""
    terminal = make()
    terminal.tty_path.unlink()
    terminal.tty_path.symlink_to("/dev/pts/99999")

    terminal.close()

    assert terminal.tty_path.is_symlink()


def test_remove_stale_links_takes_links_only(tmp_path: Path) -> None:
    """A file that is no link is somebody's."""
    (tmp_path / "dead.tty").symlink_to("/dev/pts/99999")
    (tmp_path / "file.tty").touch()
    (tmp_path / "alice.log").touch()

    remove_stale_links(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.log", "file.tty"]


def test_terminal_in_a_directory_that_is_not_there_leaks_nothing(tmp_path: Path) -> None:
    """An error at opening closes what was opened."""
    before = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(FileNotFoundError):
        PtyTerminal(tmp_path / "absent", "alice")
    (tmp_path / "bob.tty").mkdir()
    with pytest.raises(IsADirectoryError):
        PtyTerminal(tmp_path, "bob")

    assert len(list(Path("/proc/self/fd").iterdir())) == before
