"""Hands of a switch's uplink: an interface of the host between the core and the world outside.

The interface is a seam (`UplinkInterface`), of which `iovirt_dist.runtime.tap` is the one for Linux. Frames are read in
batches while the interface has some, and written as the core gives them; one that the interface does not take is
dropped, as by any Ethernet device. An interface that is taken away while the switch runs is a link that goes down: it
is looked for until it is there again.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from iovirt_dist.controllers.net.uplink import UplinkChanged, UplinkDropped, UplinkEvent, UplinkReceived
from iovirt_dist.errors import LocalError

BATCH_FRAMES: Final = 64
"""Most frames that are read before the others have their turn."""

RETRY_S: Final = 1.0
"""How often an interface that was taken away is looked for."""

_GONE: Final = frozenset({errno.EBADFD, errno.ENODEV, errno.ENXIO})
"""What Linux says of an interface that was deleted (drivers/net/tun.c: EBADFD)."""

_log = logging.getLogger(__name__)


class UplinkInterface(Protocol):
    """An Ethernet interface of the host that is ours alone."""

    @property
    def name(self) -> str:
        """By which the host knows it."""
        ...

    def read(self) -> bytes | None:
        """Return the next frame that the host sends, without check sequence; None if there is none.

        Raises:
            OSError: The interface is gone.
        """
        ...

    def write(self, frame: bytes) -> None:
        """Let the host receive a frame.

        Raises:
            OSError: It does not take it now (`BlockingIOError`, or EIO while it is set down), or it is gone.
        """
        ...

    def fileno(self) -> int:
        """Return the descriptor that is readable when `read` has something to say."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class UplinkLoop(Protocol):
    """What is needed of an asyncio event loop."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object:
        """Call when the descriptor is readable."""
        ...

    def remove_reader(self, fd: int, /) -> object:
        """Call no more."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call once, after some seconds."""
        ...


class Cancellable(Protocol):
    """A call that has not been made yet."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Uplink:
    """Hands of one uplink, in the loop's thread.

    Args:
        interface: Open.
        reopen: Opens it anew after it was taken away; raises LocalError while it cannot.
        deliver: Takes frames as they come, and the news of the interface.
        loop: The running one.
    """

    def __init__(
        self,
        interface: UplinkInterface,
        reopen: Callable[[], UplinkInterface],
        deliver: Callable[[UplinkEvent], None],
        loop: UplinkLoop,
    ) -> None:
        self._name = interface.name
        self._reopen = reopen
        self._deliver = deliver
        self._loop = loop
        self._interface: UplinkInterface | None = None
        self._retry: Cancellable | None = None
        self._refused_for = 0
        self._watch(interface)

    def send(self, frames: Sequence[bytes]) -> UplinkDropped | None:
        """Write frames; says how many were not taken, if any."""
        interface = self._interface
        if interface is None:
            return UplinkDropped(len(frames))
        dropped = 0
        for frame in frames:
            try:
                interface.write(frame)
            except OSError as error:
                dropped += 1
                self._refused(error)
        if dropped < len(frames):
            self._refused_for = 0
        return UplinkDropped(dropped) if dropped else None

    def close(self) -> None:
        """Give the interface back."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._release()

    def _watch(self, interface: UplinkInterface) -> None:
        self._interface = interface
        self._loop.add_reader(interface.fileno(), self._readable)

    def _release(self) -> None:
        if self._interface is not None:
            self._loop.remove_reader(self._interface.fileno())
            self._interface.close()
            self._interface = None

    def _readable(self) -> None:
        """Take a batch; what is left makes the descriptor readable again."""
        interface = self._interface
        if interface is None:
            return
        frames: list[bytes] = []
        end: OSError | None = None
        try:
            while len(frames) < BATCH_FRAMES and (frame := interface.read()) is not None:
                frames.append(frame)
        except OSError as error:
            end = error
        if frames:
            self._deliver(UplinkReceived(frames))
        if end is not None:
            self._lost(end)

    def _refused(self, error: OSError) -> None:
        """Say once why frames are dropped; a full queue is nothing to say."""
        if isinstance(error, BlockingIOError) or error.errno in (*_GONE, self._refused_for):
            return
        self._refused_for = error.errno or errno.EIO
        why = f"it is down: ip link set {self._name} up" if error.errno == errno.EIO else error.strerror
        _log.warning("uplink %s takes no frames: %s", self._name, why)

    def _lost(self, error: OSError) -> None:
        _log.error("uplink %s is gone (%s); looking for it every %g s", self._name, error.strerror, RETRY_S)
        self._release()
        self._retry = self._loop.call_later(RETRY_S, self._look)
        self._deliver(UplinkChanged(False))

    def _look(self) -> None:
        try:
            interface = self._reopen()
        except LocalError:
            self._retry = self._loop.call_later(RETRY_S, self._look)
            return
        self._retry = None
        _log.info("uplink %s is back", self._name)
        self._watch(interface)
        self._deliver(UplinkChanged(True))
