"""The vhost-user sockets of one gateway, and the kicks of the queues behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from iovirt_dist.gateway.vhost_user.actions import Action, KickChanged, QueueStarted, QueueStopping
from iovirt_dist.gateway.vhost_user.backend import BackendCounts
from iovirt_dist.gateway.vhost_user.events import EventGoneError, read_eventfd
from iovirt_dist.gateway.vhost_user.socket import FrontEndListener
from iovirt_dist.gateway.vm_core import Event, FrontEndCame, FrontEndSaid, FrontEndWent, Kicked, VmCore
from iovirt_dist.platform.slots import VirtioSlot


class FrontEnds:
    """All sockets of a gateway, on the running loop.

    Args:
        core: Decides.
        happen: Hands it events.
    """

    def __init__(self, core: VmCore, happen: Callable[[Event], None]) -> None:
        self._core = core
        self._happen = happen
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[VirtioSlot, FrontEndListener] = {}
        self._kicks: dict[tuple[VirtioSlot, int], int] = {}

    def listen(self, slot: VirtioSlot, path: Path) -> None:
        """Serve a device at a socket.

        Raises:
            EndpointError: The socket cannot be made.
        """
        receiver = _Receiver(self._core, slot, self._happen)
        listener = FrontEndListener(path, receiver, partial(self._walk, slot))
        listener.start()
        self._listeners[slot] = listener

    def perform(self, slot: VirtioSlot, action: Action) -> None:
        """Do what the core wants done for a front end."""
        self._listeners[slot].perform((action,))

    def close(self) -> None:
        """Send all front ends away, and remove the sockets."""
        for listener in self._listeners.values():
            listener.stop()
        for slot, queue in list(self._kicks):
            self._rest(slot, queue)

    def _walk(self, slot: VirtioSlot, action: Action) -> None:
        """Listen to a queue's kicks as long as it runs."""
        if isinstance(action, QueueStarted | KickChanged):
            self._rest(slot, action.queue)
            kick = self._core.devices[slot].backend.queues[action.queue].kick
            if kick is not None:
                self._kicks[slot, action.queue] = kick
                self._loop.add_reader(kick, self._kicked, slot, action.queue, kick)
        elif isinstance(action, QueueStopping):
            self._rest(slot, action.queue)

    def _rest(self, slot: VirtioSlot, queue: int) -> None:
        kick = self._kicks.pop((slot, queue), None)
        if kick is not None:
            self._loop.remove_reader(kick)

    def _kicked(self, slot: VirtioSlot, queue: int, kick: int) -> None:
        try:
            read_eventfd(kick)
        except EventGoneError:
            self._rest(slot, queue)
        else:
            self._happen(Kicked(slot, queue))


class _Receiver:
    """A device's core as its socket sees it: what it wants done comes by `FrontEnds.perform`."""

    def __init__(self, core: VmCore, slot: VirtioSlot, happen: Callable[[Event], None]) -> None:
        self._device = core.devices[slot]
        self._slot = slot
        self._happen = happen

    @property
    def counts(self) -> BackendCounts:
        """What happened."""
        return self._device.backend.counts

    def connect(self) -> Sequence[Action]:
        """A front end came."""
        self._happen(FrontEndCame(self._slot))
        return ()

    def receive(self, data: bytes, fds: Sequence[int]) -> Sequence[Action]:
        """A message came."""
        self._happen(FrontEndSaid(self._slot, data, fds))
        return ()

    def disconnect(self) -> Sequence[Action]:
        """The front end went, unless the core sent it away."""
        if self._device.connected:
            self._happen(FrontEndWent(self._slot))
        return ()
