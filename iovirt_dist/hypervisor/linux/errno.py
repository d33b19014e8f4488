"""Error numbers of Linux (include/uapi/asm-generic/errno-base.h and errno.h), and how a routine fails."""

from __future__ import annotations

import enum

from iovirt_dist.wire.commands import Status


class Errno(enum.IntEnum):
    """Those that the routines give."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    EINTR = 4
    EIO = 5
    ENXIO = 6
    EBADF = 9
    EAGAIN = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EEXIST = 17
    ENODEV = 19
    ENOTDIR = 20
    EISDIR = 21
    EINVAL = 22
    EMFILE = 24
    ENOTTY = 25
    EFBIG = 27
    ENOSPC = 28
    ESPIPE = 29
    EROFS = 30
    ERANGE = 34
    ENAMETOOLONG = 36
    ENOSYS = 38
    ELOOP = 40
    EOVERFLOW = 75
    EOPNOTSUPP = 95


class CallError(Exception):
    """The system call fails; never leaves `request.Request`'s caller.

    Args:
        errno: What it returns, negated.
    """

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


_OF_STATUS = {
    Status.READ_ONLY: Errno.EROFS,
    Status.OUT_OF_RANGE: Errno.ENXIO,
}


def check(status: Status) -> None:
    """Turn the failure of a backend into that of a call.

    Raises:
        CallError: EIO, unless another number says more.
    """
    if status is not Status.OK:
        raise CallError(_OF_STATUS.get(status, Errno.EIO))
