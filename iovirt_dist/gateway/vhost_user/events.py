"""Kicks and calls: eventfds, or pipes, as User-Mode Linux has them, or sockets.

The file behind such a descriptor is shared with the front end, its mode included. `mapping.FileMapper.check_event` sets
O_NONBLOCK, as other back ends do; a front end may take that away again. A read does not wait even then (RWF_NOWAIT). A
write to an eventfd has no such flag: who takes the mode away and fills the counter, halts the gateway that serves it,
and nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import Final

from iovirt_dist.errors import PeerError

_READ_BYTES: Final = 4096
_ONE: Final = struct.pack("=Q", 1)
_HERE: Final = -1
"""Offset for preadv2(2): these files have none."""
_NO_SUCH_FLAG: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_buffer = bytearray(_READ_BYTES)
_buffers: Final = [_buffer]


class EventGoneError(PeerError):
    """Nothing comes from a descriptor any more: reason ``event-gone``. Do not watch it, or it is readable for ever."""


def read_eventfd(fd: int) -> bool:
    """Take what there is to read; never waits.

    Returns:
        Whether there was anything.

    Raises:
        EventGoneError: Its other end is closed, or it cannot be read.
    """
    try:
        taken = os.preadv(fd, _buffers, _HERE, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_FLAG:
            raise EventGoneError("event-gone", str(error)) from error
        taken = _read_plainly(fd)
        if taken < 0:
            return False
    if not taken:
        raise EventGoneError("event-gone", "end of file")
    return True


def _read_plainly(fd: int) -> int:
    """Read on a kernel that does not know the flag for this kind of file; -1 if there is nothing."""
    try:
        return len(os.read(fd, _READ_BYTES))
    except BlockingIOError:
        return -1
    except OSError as error:
        raise EventGoneError("event-gone", str(error)) from error


def signal_eventfd(fd: int) -> bool:
    """Signal.

    Returns:
        Whether it can be signalled at all; one that is full is signalled already.
    """
    try:
        os.write(fd, _ONE)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def write_request(fd: int, data: bytes) -> bool:
    """Write a request of ours to the front end; it is lost if there is no room for it.

    Returns:
        Whether all of it is written.
    """
    with contextlib.suppress(OSError):
        return os.write(fd, data) == len(data)
    return False
