"""The storage seam, and raw image files behind it.

The block controller asks for reads, writes, discards and syncs of one linear range of bytes. `FileStorage` is the real
one; `iovirt_dist.testing.storage.MemoryStorage` can be torn, failed and cut. Both pass one contract suite.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import stat
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from iovirt_dist.controllers.block.extents import BLOCK_BYTES
from iovirt_dist.controllers.locking import lock_medium
from iovirt_dist.errors import ImageError
from iovirt_dist.wire.codec import Buffer

_FALLOC_FL_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_FALLOC_FL_PUNCH_HOLE: Final = 0x02
_FALLOC_FL_ZERO_RANGE: Final = 0x10
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_ZEROES: Final = bytes(1 << 20)

SCRATCH_SUFFIX: Final = ".new"
"""Of a file that is being made and means nothing yet."""

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]  # off_t is 64 bits wide on LP64


@runtime_checkable
class Storage(Protocol):
    """A medium of `size_bytes` bytes. Ranges are inside it; every method may raise OSError with an errno.

    Methods may run in several threads at once, except that nobody calls two of them for overlapping ranges if one of
    the two changes data.
    """

    size_bytes: int

    def read_at(self, offset: int, length: int) -> Buffer:
        """Return exactly `length` bytes; waits for the medium."""
        ...

    def read_cached(self, offset: int, into: memoryview) -> bool:
        """Fill a buffer if that needs no waiting for the medium; otherwise what it holds means nothing.

        Args:
            offset: Where to read.
            into: Bytes to fill, all of them.

        Returns:
            Whether it is filled.
        """
        ...

    def write_at(self, offset: int, data: Buffer) -> None:
        """Take all of `data`: later reads see it. After an error any part of the range may have changed."""
        ...

    def write_cached(self, offset: int, data: Buffer) -> bool:
        """Take all of `data` as `write_at` does if that needs no waiting for the medium; else change nothing.

        Returns:
            Whether it is taken.
        """
        ...

    def discard(self, offset: int, length: int) -> None:
        """Give the range back: it reads as zeroes, and is as stable as a write of zeroes would be."""
        ...

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeroes, of which the caller has no buffer; after an error any part of the range may have changed."""
        ...

    def sync(self) -> None:
        """Return once everything taken before the call is on stable storage."""
        ...

    def close(self) -> None:
        """Sync and let go; later calls of anything but `close` raise OSError."""
        ...


class FileStorage:
    """A raw image file or block device, locked against other owners while it is open.

    Args:
        path: The image.
        size_bytes: Create the file sparse with this size if it is absent, and demand at least as much otherwise;
            None demands an existing file.
        read_only: Open without the right to write; several owners may do so at once.

    Raises:
        ImageError: The image is absent, too short, no whole number of blocks, no file, not accessible or in use.
    """

    def __init__(self, path: Path, size_bytes: int | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._no_waiting = os.RWF_NOWAIT
        self._fd = _open_locked(path, size_bytes, read_only)
        try:
            self.size_bytes = _checked_size(self._fd, path, size_bytes, may_create=not read_only)
        except BaseException:
            os.close(self._fd)
            raise

    def grown(self) -> bool:
        """Look whether the image is longer than it was, in whole blocks; `size_bytes` is what it is then."""
        size = os.lseek(self._fd, 0, os.SEEK_END) // BLOCK_BYTES * BLOCK_BYTES
        grown = size > self.size_bytes
        if grown:
            self.size_bytes = size
        return grown

    def read_at(self, offset: int, length: int) -> Buffer:
        """Read with pread(2) until everything is there; an image that somebody cut short is EIO."""
        data = os.pread(self._fd, length, offset)
        if len(data) == length:
            return data
        parts = [data]
        while data and (missing := length - sum(map(len, parts))):
            data = os.pread(self._fd, missing, offset + length - missing)
            parts.append(data)
        if not data:
            raise OSError(errno.EIO, "image is shorter than it was", str(self.path))
        return b"".join(parts)

    def read_cached(self, offset: int, into: memoryview) -> bool:
        """Read from the page cache with RWF_NOWAIT (preadv2(2), Linux 4.14).

        File systems that do not know the flag (tmpfs) read plainly.
        """
        try:
            return os.preadv(self._fd, (into,), offset, self._no_waiting) == len(into)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED or not self._no_waiting:
                raise
            self._no_waiting = 0
            return self.read_cached(offset, into)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write with pwrite(2) until everything is taken."""
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, memoryview(data)[written:], offset + written)

    def write_cached(self, offset: int, data: Buffer) -> bool:
        """Write: the page cache takes it."""
        self.write_at(offset, data)
        return True

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space, so that writes there cannot find the file system full (posix_fallocate(3))."""
        os.posix_fallocate(self._fd, offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole (fallocate(2)), or write zeroes where the file system has no holes."""
        self._clear(_FALLOC_FL_PUNCH_HOLE, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Zero the range (fallocate(2)), or write zeroes where the file system cannot (tmpfs)."""
        self._clear(_FALLOC_FL_ZERO_RANGE, offset, length)

    def _clear(self, mode: int, offset: int, length: int) -> None:
        """Let the file system clear a range; what it cannot is written, a MiB of zeroes at a time."""
        if not _fallocate(self._fd, mode | _FALLOC_FL_KEEP_SIZE, offset, length):
            return
        error = ctypes.get_errno()
        if error not in _NOT_SUPPORTED:
            raise OSError(error, os.strerror(error), str(self.path))
        for start in range(offset, offset + length, len(_ZEROES)):
            self.write_at(start, memoryview(_ZEROES)[: offset + length - start])

    def sync(self) -> None:
        """fdatasync(2): data, and the metadata that finding it needs. Read-only file systems refuse it (EINVAL)."""
        if self._fd < 0:
            raise OSError(errno.EBADF, "image is closed", str(self.path))
        if not self._read_only:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Sync, close and unlock; an error of the last sync is raised after closing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if not self._read_only:
                os.fdatasync(fd)
        finally:
            os.close(fd)


def _open_locked(path: Path, size_bytes: int | None, read_only: bool) -> int:
    """Open and lock the image; once more if it was replaced by another file between the two."""
    while True:
        fd = _open(path, size_bytes, read_only)
        try:
            lock_medium(fd, path, shared=read_only)
            if _is_still(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))  # noqa: PTH116 - its pair has no method of Path
    except FileNotFoundError:
        return False


def _open(path: Path, size_bytes: int | None, read_only: bool) -> int:
    """Open the image; create an empty file where one is absent and may be created."""
    may_create = size_bytes is not None and not read_only
    try:
        if may_create:
            path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if may_create else 0)
        return os.open(path, flags | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise ImageError("no such image", str(path), "give its size to have it created") from None
    except OSError as error:
        raise ImageError(
            f"cannot be opened ({os.strerror(error.errno or 0)})", str(path), "name a file that this user may write"
        ) from None


def _checked_size(fd: int, path: Path, least_bytes: int | None, *, may_create: bool) -> int:
    """Return the image's size; give an empty new file its size first.

    A file of no bytes is new, or its creator died before it had a size: either way nothing can be lost.
    """
    status = os.fstat(fd)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise ImageError("is no file or block device", str(path), "name a raw disk image")
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0 and least_bytes is not None and may_create:
        _create(fd, path, least_bytes)
        size = least_bytes
    if size == 0 or size % BLOCK_BYTES:
        raise ImageError(
            f"{size} bytes are no whole number of {BLOCK_BYTES}-byte blocks",
            str(path),
            f"pad it with 'truncate -s %{BLOCK_BYTES}'",
        )
    if least_bytes is not None and size < least_bytes:
        raise ImageError(
            f"has {size} bytes, fewer than the {least_bytes} that are configured",
            str(path),
            f"grow it with 'truncate -s {least_bytes}' or configure a smaller size",
        )
    return size


def _create(fd: int, path: Path, size_bytes: int) -> None:
    """Make the new image survive a power cut: its size, and its name in the directory."""
    os.ftruncate(fd, size_bytes)
    os.fsync(fd)
    sync_folder(path.parent)


def sweep_scratch(path: Path) -> None:
    """Remove files ``.NAME.PID.new`` of processes killed while they made `path`; those at work hold a lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{SCRATCH_SUFFIX}"):
        with contextlib.suppress(ImageError, OSError):
            file = FileStorage(left)
            left.unlink()
            file.close()


def scratch_path(path: Path) -> Path:
    """Return where this process makes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}{SCRATCH_SUFFIX}")


def take_place(scratch: Path, path: Path) -> None:
    """Let a file that is stable replace another, with that one's owner and mode where this user may give them."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        old = path.stat()
        scratch.chmod(stat.S_IMODE(old.st_mode))
        os.chown(scratch, old.st_uid, old.st_gid)
    scratch.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder stable (fsync(2))."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
