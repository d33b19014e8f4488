"""A Linux TAP interface: an Ethernet interface of the host whose other end is a descriptor.

Sources: the kernel's Documentation/networking/tuntap.rst, linux/if_tun.h and netdevice(7). An interface that exists
is attached to and stays; one that does not is made, and ends with the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
from typing import Final

from iovirt_dist.errors import EndpointError
from iovirt_dist.wire.commands import MAX_FRAME_BYTES

DEVICE: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x400454CA
"""linux/if_tun.h: _IOW('T', 202, int)."""
_TUNSETOFFLOAD: Final = 0x400454D0
"""linux/if_tun.h: _IOW('T', 208, unsigned int)."""
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""linux/if_tun.h: whole Ethernet frames, without four bytes of packet information in front."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU = 0x8913, 0x8914, 0x8921, 0x8922
"""linux/sockios.h."""
_IFF_UP: Final = 0x0001
"""linux/if.h."""
_FLAGS: Final = struct.Struct("16sH22x")
"""struct ifreq on 64-bit machines, 40 bytes: a name and flags (linux/if.h)."""
_MTU: Final = struct.Struct("16si20x")
"""The same with an MTU."""

_FIXES: Final = {
    errno.ENOENT: "load the kernel's tun module, or let the container have /dev/net/tun",
    errno.ENODEV: "load the kernel's tun module, or let the container have /dev/net/tun",
    errno.ENXIO: "load the kernel's tun module, or let the container have /dev/net/tun",
    errno.EBUSY: "stop the other process, or take another name",
    errno.EINVAL: "take the name of a TAP interface, or one that is free",
}
_WHAT: Final = {
    errno.EBUSY: "another process is attached to the interface",
    errno.EINVAL: "the interface is no TAP interface, or one of several queues",
}

_log = logging.getLogger(__name__)


class TapInterface:
    """One end of a TAP interface; made by `open_tap`.

    Args:
        name: The interface's.
        fd: Attached, and not blocking; closed by `close`.
        made: It was made for us, and ends with us.

    Attributes:
        made: See above.
    """

    def __init__(self, name: str, fd: int, *, made: bool) -> None:
        self.made = made
        self._name = name
        self._fd = fd

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    def read(self) -> bytes | None:
        """Return the next frame that the host sends; None if there is none.

        One that is too long for any guest comes with `MAX_FRAME_BYTES` + 1 bytes.

        Raises:
            OSError: The interface was deleted.
        """
        try:
            return os.read(self._fd, MAX_FRAME_BYTES + 1)
        except BlockingIOError:
            return None

    def write(self, frame: bytes) -> None:
        """Let the host receive a frame.

        Raises:
            OSError: The host does not take it: `BlockingIOError`, EIO while the interface is set down.
        """
        os.write(self._fd, frame)

    def fileno(self) -> int:
        """Return the descriptor: readable when a frame is there or the interface is gone."""
        return self._fd

    def close(self) -> None:
        """Detach; an interface that was made for us ends."""
        os.close(self._fd)


def open_tap(name: str, mtu: int, *, make: bool = True) -> TapInterface:
    """Attach to a TAP interface, or make one and set it up.

    Args:
        name: The interface's; 1..15 bytes.
        mtu: Largest payload of a frame, bytes. An interface of which we may not set it keeps its own; that is logged.
        make: Whether to make it if it does not exist.

    Raises:
        EndpointError: It cannot be had; says why and what to do.
    """
    existed = exists(name)
    if not existed and not make:
        raise EndpointError("there is no such interface", f"uplink {name}")
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(name, f"cannot open {DEVICE}", error) from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _FLAGS.pack(os.fsencode(name), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)  # what an earlier owner of the interface agreed upon is not for us
        _configure(name, mtu, set_up=not existed)
    except OSError as error:
        os.close(fd)
        raise _failure(name, "cannot have the interface", error) from None
    _log.info("uplink %s: %s", name, "attached" if existed else "made")
    return TapInterface(name, fd, made=not existed)


def exists(name: str) -> bool:
    """Whether the host has an interface of that name."""
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(name) > 0
    return False


def may_make_taps() -> OSError | None:
    """Try to make an interface, for a moment; returns why it cannot be done."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _FLAGS.pack(b"", _IFF_TAP | _IFF_NO_PI))  # the kernel finds a name
    except OSError as error:
        return error
    finally:
        os.close(fd)
    return None


def _configure(name: str, mtu: int, *, set_up: bool) -> None:
    """Set the MTU and, if it is ours, set the interface up.

    Raises:
        OSError: It is ours and cannot be configured.
    """
    encoded = os.fsencode(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        own_mtu: int = _MTU.unpack(fcntl.ioctl(control, _SIOCGIFMTU, _MTU.pack(encoded, 0)))[1]
        if own_mtu != mtu:
            try:
                fcntl.ioctl(control, _SIOCSIFMTU, _MTU.pack(encoded, mtu))
            except PermissionError:
                _log.warning("uplink %s: its mtu stays %d: ip link set %s mtu %d", name, own_mtu, name, mtu)
        flags: int = _FLAGS.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _FLAGS.pack(encoded, 0)))[1]
        if set_up:
            fcntl.ioctl(control, _SIOCSIFFLAGS, _FLAGS.pack(encoded, flags | _IFF_UP))
        elif not flags & _IFF_UP:
            _log.warning("uplink %s is down: ip link set %s up", name, name)


def _failure(name: str, attempt: str, error: OSError) -> EndpointError:
    number = error.errno or 0
    if number in (errno.EPERM, errno.EACCES):
        what = f"{attempt}: this user may not"
        fix = f"run as root, or once: sudo ip tuntap add dev {name} mode tap user $USER"
        return EndpointError(what, f"uplink {name}", fix)
    return EndpointError(_WHAT.get(number, f"{attempt}: {error.strerror}"), f"uplink {name}", _FIXES.get(number, ""))
