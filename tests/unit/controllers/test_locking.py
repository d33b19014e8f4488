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


def test_lock_holder_that_has_ended_is_named_by_number(descriptors: tuple[int, int], tmp_path: Path) -> None:
    """A pid without a process still helps."""
    locks = tmp_path / "locks"
    inode = os.fstat(descriptors[0]).st_ino
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 99999999 fe:00:{inode} 0 EOF\n")

    assert lock_holder(descriptors[0], locks) == "process 99999999"
