"""The network controller's hands: capture files and the folder of files to read."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from iovirt_dist.controllers.net.core import CaptureFrames
from iovirt_dist.controllers.net.files import FileFolder
from iovirt_dist.controllers.net.runner import NetRunner
from iovirt_dist.controllers.net.tftp import CloseFile, FileOpened, FileRead, OpenFile, ReadFile
from tests.unit.controllers.net.support import A, frame


def test_runner_captures_frames_with_wall_clock_times(tmp_path: Path) -> None:
    """Seconds and nanoseconds of both clocks together."""
    runner = NetRunner(7_000_000_000)
    tap = tmp_path / "x.pcap"

    outcome = runner.perform(CaptureFrames(tap, [frame(A)], 5))
    runner.close()

    assert outcome is None
    assert tap.read_bytes()[24:32] == b"\7\0\0\0\5\0\0\0"


def test_runner_gives_up_a_capture_file_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once."""
    runner = NetRunner(0)
    (tmp_path / "file").write_bytes(b"")
    action = CaptureFrames(tmp_path / "file" / "x.pcap", [frame(A)], 0)

    with caplog.at_level(logging.ERROR):
        runner.perform(action)
        runner.perform(action)
    runner.close()

    assert len(caplog.records) == 1


def test_runner_gives_up_a_full_capture_file(caplog: pytest.LogCaptureFixture) -> None:
    """The device says that there is no space."""
    runner = NetRunner(0)

    with caplog.at_level(logging.ERROR):
        runner.perform(CaptureFrames(Path("/dev/full"), [frame(A)], 0))
    runner.close()

    assert "given up" in caplog.text


@pytest.mark.parametrize("name", ["a/b", "/a/b", "a/../a/b"])
def test_folder_files_are_opened_read_and_closed(tmp_path: Path, name: str) -> None:
    """Slashes in front are the folder's own."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"content")
    runner = NetRunner(0, tmp_path)

    opened = runner.perform(OpenFile(3, name))
    middle = runner.perform(ReadFile(3, 3, 100))
    closed = runner.perform(CloseFile(3))
    runner.close()

    assert (opened, middle, closed) == (FileOpened(3, 7), FileRead(3, b"tent"), None)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("none", errno.ENOENT),
        ("../secret", errno.EACCES),
        ("link", errno.EACCES),
        ("loop", errno.ELOOP),
        ("folder", errno.EACCES),
        ("fifo", errno.EACCES),
        ("a\0b", errno.ENOENT),
        ("x" * 5000, errno.ENAMETOOLONG),
    ],
)
def test_folder_gives_nothing_that_is_no_file_of_its_own(tmp_path: Path, name: str, error: int) -> None:
    """Neither above it nor through links, and no FIFO that would be waited for."""
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    folder = FileFolder(root)

    outcome = folder.perform(OpenFile(1, name))

    assert outcome == FileOpened(1, 0, error)
    assert folder.perform(CloseFile(1)) is None


def test_folder_closes_what_is_open(tmp_path: Path) -> None:
    """A read then is an error, as after any failure."""
    (tmp_path / "f").write_bytes(b"x")
    folder = FileFolder(tmp_path)
    folder.perform(OpenFile(1, "f"))

    folder.close()

    assert folder.perform(ReadFile(1, 0, 1)) == FileRead(1, b"", errno.EBADF)
