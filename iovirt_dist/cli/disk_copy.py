"""Raw images out of disks and into them: sparse, in steps, and never half written under the name that counts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from iovirt_dist.cli.progress import copying
from iovirt_dist.controllers.block.cluster_map import CLUSTER_BYTES
from iovirt_dist.controllers.block.storage import Storage, scratch_path, sweep_scratch, sync_folder, take_place
from iovirt_dist.errors import LocalError

STEP_BYTES: Final = 1 << 20

_ZEROES: Final = bytes(STEP_BYTES)

_NO_HOLES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""lseek(2) of what cannot tell holes from data: block devices, and some file systems."""

Write = Callable[[int, memoryview], object]
Discard = Callable[[int, int], object]


def open_source(path: Path) -> BinaryIO:
    """Open a raw image to read.

    Raises:
        LocalError: It is no file or block device, or cannot be read.
    """
    try:
        file = path.open("rb", buffering=0)
        if not _is_image(file.fileno()):
            file.close()
            raise LocalError("is no file or block device", str(path), "name a raw disk image")
    except OSError as error:
        raise LocalError(f"cannot be read ({error.strerror})", str(path)) from None
    return file


def source_bytes(file: BinaryIO) -> int:
    """Return the length of an image, file or device."""
    return os.lseek(file.fileno(), 0, os.SEEK_END)


@contextlib.contextmanager
def in_words(what: str, where: str) -> Iterator[None]:
    """Turn what the operating system says of a file into a line for the user.

    Raises:
        LocalError: The block has failed with OSError.
    """
    try:
        yield
    except OSError as error:
        raise LocalError(f"{what} ({error.strerror or error})", where) from None


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is copied from: what goes wrong with it is told as an error of it, not of what is written.

    Attributes:
        fd: Open to read.
        path: Its name, for messages.
    """

    fd: int
    path: Path

    def data_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the parts of a range that are no holes, as first byte and byte behind the last.

        What cannot tell is all data.

        Raises:
            LocalError: It is broken.
        """
        while start < end:
            with in_words("cannot be read", str(self.path)):
                first, stop = self._next_data(start, end)
            if first >= end:
                return
            yield first, stop
            start = stop

    def read(self, offset: int, length: int) -> bytes:
        """Read; what is behind the end of a file that became shorter meanwhile is zeroes.

        Raises:
            LocalError: It cannot be read.
        """
        parts = []
        with in_words("cannot be read", str(self.path)):
            while length and (data := os.pread(self.fd, length, offset)):
                parts.append(data)
                offset, length = offset + len(data), length - len(data)
        return b"".join((*parts, bytes(length)))

    def _next_data(self, start: int, end: int) -> tuple[int, int]:
        """The next part that is no hole; it begins at the end if nothing but a hole is left."""
        try:
            first = os.lseek(self.fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno in _NO_HOLES:
                return start, end
            if error.errno == errno.ENXIO:
                return end, end
            raise
        return (end, end) if first >= end else (first, min(os.lseek(self.fd, first, os.SEEK_HOLE), end))


def _is_image(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


@contextlib.contextmanager
def replacing(path: Path, size_bytes: int, *, absent: bool = False) -> Iterator[int]:
    """Give a new sparse file that takes the place of `path` once the block ends well and all of it is stable.

    Args:
        path: The name that counts.
        size_bytes: Length of the new file.
        absent: There is no such file yet, so nobody has it locked; what comes there meanwhile stays.

    Yields:
        Its file descriptor.

    Raises:
        LocalError: It cannot be written; `path` is as before.
        FileExistsError: It has come there meanwhile although it was absent.
    """
    scratch = scratch_path(path)
    fd = -1
    try:
        sweep_scratch(path)
        mode = 0o600 if path.exists() else 0o644  # nobody reads what he may not read under the other name
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, size_bytes)
        yield fd
        os.fsync(fd)
        if absent:
            path.hardlink_to(scratch)
            sync_folder(path.parent)
        else:
            take_place(scratch, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise LocalError(f"cannot be written ({error.strerror or error})", str(path), "it is as it was") from None
    finally:
        scratch.unlink(missing_ok=True)
        if fd >= 0:
            os.close(fd)


def copy_storage(source: Storage, offset: int, length: int, fd: int, where: str, what: str) -> None:
    """Copy part of a storage to the begin of a new file, which stays sparse where there are zeroes.

    Args:
        source: What is read.
        offset: Where its part begins.
        length: Bytes of it.
        fd: The new file.
        where: What the storage is called, for messages.
        what: What this is, for the bar.

    Raises:
        LocalError: The storage cannot be read.
    """
    with copying(length, what) as advance:
        for start in range(0, length, STEP_BYTES):
            with in_words("cannot be read", where):
                data = memoryview(source.read_at(offset + start, min(STEP_BYTES, length - start)))
            write_sparse(fd, start, data)
            advance(len(data))


def copy_file(source: Source, length: int, target: int, offset: int, what: str) -> None:
    """Copy the first `length` bytes of a file into a new file, holes as holes."""
    with copying(length, what) as advance:
        done = 0
        for first, end in source.data_ranges(0, length):
            for start in range(first, end, STEP_BYTES):
                data = memoryview(source.read(start, min(STEP_BYTES, end - start)))
                write_sparse(target, offset + start, data)
                advance(start + len(data) - done)
                done = start + len(data)
        advance(length - done)


def copy_around(source: Source, target: int, hole: tuple[int, int], size_bytes: int, what: str) -> None:
    """Copy a file to a new one of the same length, all but one range."""
    with copying(size_bytes, what) as advance:
        for begin, stop in ((0, hole[0]), (hole[1], size_bytes)):
            done = begin
            for first, end in source.data_ranges(begin, stop):
                for start in range(first, end, STEP_BYTES):
                    write_all(target, start, memoryview(source.read(start, min(STEP_BYTES, end - start))))
                    advance(min(start + STEP_BYTES, end) - done)
                    done = min(start + STEP_BYTES, end)
            advance(stop - done)


def write_all(fd: int, offset: int, data: memoryview) -> None:
    """Write all of it."""
    while data:
        written = os.pwrite(fd, data, offset)
        offset, data = offset + written, data[written:]


def write_sparse(fd: int, offset: int, data: memoryview) -> None:
    """Write what is not zero to a new file."""
    for start, end, zero in zero_runs(data):
        if not zero:
            write_all(fd, offset + start, data[start:end])


def zero_runs(data: memoryview) -> Iterator[tuple[int, int, bool]]:
    """Give the runs of clusters in `data` that are zero or not: first byte, byte behind the last, whether zero."""
    yield from runs_of(len(data), lambda start, end: data[start:end] == _ZEROES[: end - start])


def runs_of(length: int, kind: Callable[[int, int], object]) -> Iterator[tuple[int, int, bool]]:
    """Give runs of clusters that are of one kind, at most `STEP_BYTES` in all."""
    if not length:
        return
    begin, current = 0, bool(kind(0, min(CLUSTER_BYTES, length)))
    for start in range(CLUSTER_BYTES, length, CLUSTER_BYTES):
        found = bool(kind(start, min(start + CLUSTER_BYTES, length)))
        if found != current:
            yield begin, start, current
            begin, current = start, found
    yield begin, length, current
