"""Locks on media."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.controllers.locking import lock_holder, lock_holder_pid, lock_medium
from iovirt_dist.errors import ImageError


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two independent open descriptions of one file."""
    path = tmp_path / "disk.img"
    path.touch()
    fds = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield fds
    for fd in fds:
        os.close(fd)


def test_lock_that_is_held_names_the_holder_and_the_fix(descriptors: tuple[int, int]) -> None:
    """The one-line error says which process has the image."""
    first, second = descriptors
    lock_medium(first, Path("disk.img"))

    with pytest.raises(ImageError) as caught:
        lock_medium(second, Path("disk.img"))

    assert f"process {os.getpid()}" in str(caught.value)
    assert Path(sys.argv[0]).name in str(caught.value) or "python" in str(caught.value)
    assert str(caught.value).startswith("disk.img: is in use by")
    assert "; stop that process" in str(caught.value)


def test_shared_locks_exclude_only_the_exclusive_one(descriptors: tuple[int, int]) -> None:
    """Read-only owners share; a writer is refused."""
    first, second = descriptors
    lock_medium(first, Path("disk.img"), shared=True)
    lock_medium(second, Path("disk.img"), shared=True)

    with pytest.raises(ImageError):
        lock_medium(second, Path("disk.img"))


@pytest.mark.parametrize(
    "table",
    ["", "garbage\n\n1: FLOCK\n", "1: FLOCK  ADVISORY  WRITE -1 fe:00:{inode} 0 EOF\n"],
    ids=["empty", "malformed", "other-namespace"],
)
def test_lock_holder_that_the_kernel_does_not_tell_is_another_process(
    descriptors: tuple[int, int], tmp_path: Path, table: str
) -> None:
    """No table entry and an entry without a usable pid give the general text."""
    locks = tmp_path / "locks"
    locks.write_text(table.format(inode=os.fstat(descriptors[0]).st_ino))

    assert lock_holder(descriptors[0], locks) == "another process"
    assert lock_holder(descriptors[0], tmp_path / "absent") == "another process"


def test_lock_holder_pid_is_that_of_the_owner(descriptors: tuple[int, int]) -> None:
    """None while nobody holds it."""
    before = lock_holder_pid(descriptors[0])

    lock_medium(descriptors[0], Path("disk.img"))

    assert (before, lock_holder_pid(descriptors[1])) == (None, os.getpid())


@pytest.mark.parametrize(
    ("device", "holder"),
    [(os.makedev(0x103, 5), 22), (os.makedev(0xFE, 0), 11), (os.makedev(0x103, 6), None), (os.makedev(0, 0x2A), 11)],
    ids=["this-device", "other-device", "no-device", "without-a-device"],
)
def test_lock_holder_is_that_of_the_file_on_its_own_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: int, holder: int | None
) -> None:
    """Inode numbers are each file system's; one without a device may have another number in the table."""
    locks = tmp_path / "locks"
    locks.write_text("1: FLOCK  ADVISORY  WRITE 11 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 22 103:05:77 0 EOF\n")
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((0o100644, 77, device, 1, 0, 0, 0, 0, 0, 0)))

    assert lock_holder_pid(3, locks) == holder


def test_lock_holder_that_has_ended_is_named_by_number(descriptors: tuple[int, int], tmp_path: Path) -> None:
    """A pid without a process still helps."""
    locks = tmp_path / "locks"
    status = os.fstat(descriptors[0])
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 99999999 {device}:{status.st_ino} 0 EOF\n")

    assert lock_holder(descriptors[0], locks) == "process 99999999"
