"""Descriptors of a front end as memory and as events: the real `memory.Mapper`.

A file that becomes shorter while it is mapped ends the process that touches what is missing (SIGBUS). So a file is
measured before it is mapped, and one that can be sealed (memfd_create(2)) is forbidden to shrink. Others cannot: User-
Mode Linux has its memory in a plain file, and a front end that cuts it off ends the gateway that serves it, as does one
whose file lies in a file system that fails. Nobody else is served by that process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from typing import Final

from iovirt_dist.gateway.vhost_user.memory import MappingError

_PAGE: Final = mmap.ALLOCATIONGRANULARITY
_EVENT_LINK: Final = "anon_inode:[eventfd]"


class FileMapper:
    """Maps files with mmap(2), shared.

    Attributes:
        unsealed: Mappings of files that their owner may still make shorter.
    """

    def __init__(self) -> None:
        self.unsealed = 0

    def map(self, file: int, offset: int, length: int) -> memoryview:
        """Map a part of a file.

        Raises:
            MappingError: Reason ``file-kind``, ``file-short`` or ``map-failed``.
        """
        try:
            status = os.fstat(file)
        except OSError as error:
            raise MappingError("file-kind", str(error)) from error
        if not stat.S_ISREG(status.st_mode):
            raise MappingError("file-kind", f"mode {status.st_mode:o}")
        if not 0 <= offset <= offset + length <= status.st_size or not length:
            raise MappingError("file-short", f"{length} bytes at {offset} of a file of {status.st_size}")
        sealed = _seal(file)
        if os.fstat(file).st_size < offset + length:  # cut off between the two
            raise MappingError("file-short", "it became shorter")
        start, end = _whole_pages(status, offset, offset + length)
        try:
            pages = mmap.mmap(file, end - start, mmap.MAP_SHARED, offset=start)
        except (OSError, ValueError, OverflowError) as error:
            raise MappingError("map-failed", str(error)) from error
        self.unsealed += not sealed
        return memoryview(pages)[offset - start : offset - start + length]

    def create(self, length: int) -> tuple[int, memoryview]:
        """Make memory that neither side can make shorter or longer.

        Raises:
            MappingError: Reason ``memory-none``.
        """
        try:
            file = os.memfd_create("vhost-user-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise MappingError("memory-none", str(error)) from error
        try:
            os.ftruncate(file, length)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return file, memoryview(mmap.mmap(file, length, mmap.MAP_SHARED))
        except (OSError, ValueError, OverflowError) as error:
            os.close(file)
            raise MappingError("memory-none", str(error)) from error

    def check_event(self, file: int) -> None:
        """Check that a descriptor is an eventfd, a pipe, or a socket, and make it one that does not wait.

        Raises:
            MappingError: Reason ``event-kind``.
        """
        try:
            mode = os.fstat(file).st_mode
            if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not _is_eventfd(file):
                raise MappingError("event-kind", f"mode {mode:o}")
            os.set_blocking(file, False)
        except OSError as error:
            raise MappingError("event-kind", str(error)) from error


def _whole_pages(status: os.stat_result, start: int, end: int) -> tuple[int, int]:
    """Widen a part of a file to what can be mapped: a file of huge pages says by its block size how large they are."""
    page = status.st_blksize if status.st_blksize % _PAGE == 0 else _PAGE
    return start // page * page, min(-(-end // page) * page, status.st_size)


def _seal(file: int) -> bool:
    """Forbid a file to shrink if it can be forbidden; return whether it cannot shrink."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    try:
        return bool(fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOTTY):
            raise MappingError("file-kind", str(error)) from error
        return False


def _is_eventfd(file: int) -> bool:
    """Anonymous inodes have no type; the kernel tells their names only here."""
    return os.readlink(f"/proc/self/fd/{file}") == _EVENT_LINK  # noqa: PTH115 - no path: the text of the link
