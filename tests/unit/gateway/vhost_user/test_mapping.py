"""Descriptors as memory and as events."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.memory import MappingError


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is opened is closed."""
    with ExitStack() as stack:
        yield stack


def memfd(stack: ExitStack, size: int, flags: int = os.MFD_ALLOW_SEALING) -> int:
    """Make a file in memory."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | flags)
    stack.callback(os.close, fd)
    os.ftruncate(fd, size)
    return fd


def open_descriptors() -> int:
    """Count those of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def reason(mapper: FileMapper, fd: int, offset: int, length: int) -> str:
    """Return why it cannot be mapped."""
    with pytest.raises(MappingError) as caught:
        mapper.map(fd, offset, length)
    return caught.value.reason


@pytest.mark.parametrize(("offset", "length"), [(0, 10_000), (1, 1), (4095, 2), (4096, 4096), (5000, 5000)])
def test_map_is_the_file_at_any_offset(stack: ExitStack, offset: int, length: int) -> None:
    """Not only whole pages, and not only sizes of whole pages."""
    fd = memfd(stack, 10_000)
    os.pwrite(fd, bytes(range(250)) * 40, 0)

    view = FileMapper().map(fd, offset, length)
    found = bytes(view)
    view[0:1] = b"\xff"

    assert found == (bytes(range(250)) * 40)[offset : offset + length]
    assert len(view) == length
    assert os.pread(fd, 1, offset) == b"\xff"


def test_map_outlives_the_descriptor() -> None:
    """It is closed when it is mapped; when the last view goes, so does the mapping."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    gc.collect()
    before = open_descriptors()

    view = FileMapper().map(fd, 0, 4096)
    os.close(fd)
    view[:4] = b"data"
    assert bytes(view[:4]) == b"data"
    del view
    gc.collect()

    assert open_descriptors() == before - 1


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10_001), (10_000, 1), (9_999, 2), (0, 0), (1 << 63, 1), ((1 << 64) - 1, 1), (0, (1 << 64) - 1), (-1, 5)],
)
def test_map_of_what_is_not_in_the_file_is_refused(stack: ExitStack, offset: int, length: int) -> None:
    """To touch it would end the process."""
    assert reason(FileMapper(), memfd(stack, 10_000), offset, length) == "file-short"


def test_map_of_what_is_no_file_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    """Pipe, device, event, socket, folder; and a number that is no descriptor."""
    mapper = FileMapper()
    near, far = socket.socketpair()
    fds = [
        *os.pipe(),
        os.open("/dev/null", os.O_RDWR),
        os.open("/dev/zero", os.O_RDWR),
        os.eventfd(0),
        os.open(tmp_path, os.O_RDONLY),
        near.detach(),
        far.detach(),
    ]
    for fd in fds:
        stack.callback(os.close, fd)

    assert {reason(mapper, fd, 0, 1) for fd in [*fds, 1 << 20]} == {"file-kind"}


def test_map_of_a_file_that_may_not_be_written_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    """Requests are answered in memory."""
    (tmp_path / "file").write_bytes(bytes(4096))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    stack.callback(os.close, fd)

    assert reason(FileMapper(), fd, 0, 4096) == "map-failed"


def test_map_forbids_the_file_to_shrink_if_it_can(stack: ExitStack) -> None:
    """From then on nobody can take the memory from under us."""
    mapper = FileMapper()
    fd = memfd(stack, 8192)

    view = mapper.map(fd, 0, 8192)

    with pytest.raises(PermissionError):
        os.ftruncate(fd, 4096)
    assert (len(view), mapper.unsealed) == (8192, 0)


def test_map_counts_files_that_may_shrink(stack: ExitStack, tmp_path: Path) -> None:
    """A plain file, and one whose seals are not for us to set."""
    mapper = FileMapper()
    (tmp_path / "file").write_bytes(bytes(4096))
    plain = os.open(tmp_path / "file", os.O_RDWR)
    stack.callback(os.close, plain)

    views = [mapper.map(plain, 0, 4096), mapper.map(memfd(stack, 4096, 0), 0, 4096)]

    assert [len(view) for view in views] == [4096, 4096]
    assert mapper.unsealed == 2


def test_create_makes_memory_that_keeps_its_size(stack: ExitStack) -> None:
    """Shared by who has the descriptor."""
    fd, view = FileMapper().create(192)
    stack.callback(os.close, fd)
    view[:3] = b"abc"

    assert os.pread(fd, 192, 0) == b"abc" + bytes(189)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


@pytest.mark.parametrize("length", [1 << 62, 1 << 64, 0])
def test_create_of_more_than_there_is_is_refused(length: int) -> None:
    """And leaves no descriptor behind."""
    before = open_descriptors()
    with pytest.raises(MappingError) as caught:
        FileMapper().create(length)
    assert caught.value.reason == "memory-none"
    assert open_descriptors() == before


def test_check_event_takes_events_and_makes_them_not_wait(stack: ExitStack) -> None:
    """An eventfd, both ends of a pipe, a socket."""
    near, far = socket.socketpair()
    fds = [os.eventfd(0, 0), *os.pipe(), near.detach(), far.detach()]
    for fd in fds:
        stack.callback(os.close, fd)
        FileMapper().check_event(fd)

    assert [os.get_blocking(fd) for fd in fds] == [False] * 5


def test_check_event_refuses_what_is_readable_for_ever(stack: ExitStack, tmp_path: Path) -> None:
    """Devices, files, folders, other things without a name; and a number that is no descriptor."""
    (tmp_path / "file").touch()
    names = [Path("/dev/null"), Path("/dev/zero"), tmp_path, tmp_path / "file"]
    fds = [os.open(name, os.O_RDONLY) for name in names] + [os.memfd_create("test")]
    for fd in fds:
        stack.callback(os.close, fd)

    for fd in [*fds, 1 << 20]:
        with pytest.raises(MappingError) as caught:
            FileMapper().check_event(fd)
        assert caught.value.reason == "event-kind"
