"""One owner per medium: advisory locks that die with their process, and who holds them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from iovirt_dist.errors import ImageError


def lock_medium(fd: int, path: Path, *, shared: bool = False) -> None:
    """Take a BSD lock (flock(2)) on an open file or directory; closing `fd` or the end of the process frees it.

    Args:
        fd: Open file descriptor.
        path: Its name, for messages.
        shared: Others may hold a shared lock as well.

    Raises:
        ImageError: Another process holds it (named where the kernel tells), or the file system has no locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ImageError(
            f"is in use by {lock_holder(fd)}", str(path), "stop that process first, or give this controller its own"
        ) from None
    except OSError as error:
        raise ImageError(
            f"cannot be locked ({errno.errorcode.get(error.errno or 0, error.errno)})",
            str(path),
            "put it on a local file system",
        ) from None


def lock_holder(fd: int, locks: Path = Path("/proc/locks")) -> str:
    """Describe who holds a lock on the file: ``process 4711 (python -m services.block disk0)``.

    Args:
        fd: Open file descriptor of the locked file.
        locks: The kernel's table (proc_locks(5)): ``1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF``.
    """
    pid = lock_holder_pid(fd, locks)
    return "another process" if pid is None else _describe(pid)


def lock_holder_pid(fd: int, locks: Path = Path("/proc/locks")) -> int | None:
    """Return the number of a process that holds a lock on the file; None for none, or none that the kernel tells."""
    status = os.fstat(fd)
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[4].isdigit() and _is_of(fields[5], status):
            return int(fields[4])
    return None


def _is_of(place: str, status: os.stat_result) -> bool:
    """Whether a place in the kernel's table, ``fe:00:1234``, is that of a file.

    File systems without a device of their own (major number 0: btrfs, overlayfs) may tell stat(2) of another number
    than the table has: there the inode has to do.
    """
    device, _, inode = place.rpartition(":")
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    return inode == str(status.st_ino) and (not major or device == f"{major:02x}:{minor:02x}")


def _describe(pid: int) -> str:
    """Add the command line where it can be read."""
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({' '.join(word for word in words if word)[:80]})"
