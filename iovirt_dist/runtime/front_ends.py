"""The vhost-user sockets of one gateway, and the kicks of the queues behind them.

Who has kicked or been called often kicks again soon, so kicks are polled for a while as messages are
(`transport.halt_poll`).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from iovirt_dist.gateway.vhost_user.actions import Action, KickChanged, QueueStarted, QueueStopping
from iovirt_dist.gateway.vhost_user.backend import BackendCounts
from iovirt_dist.gateway.vhost_user.events import EventGoneError, read_eventfd
from iovirt_dist.gateway.vhost_user.socket import FrontEndListener
from iovirt_dist.gateway.vm_core import Event, FrontEndCame, FrontEndSaid, FrontEndWent, Kicked, VmCore
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.transport.halt_poll import HaltPoll


class FrontEnds:
    """All sockets of a gateway, on the running loop.

    Args:
        core: Decides.
        happen: Hands it events.
        halt_poll: Polls the kicks of all queues that run.
    """

    def __init__(self, core: VmCore, happen: Callable[[Event], None], halt_poll: HaltPoll) -> None:
        self._core = core
        self._happen = happen
        self._halt_poll = halt_poll
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[VirtioSlot, FrontEndListener] = {}
        self._kicks: dict[tuple[VirtioSlot, int], Kick] = {}

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
                self._listen_to(slot, action.queue, kick)
        elif isinstance(action, QueueStopping):
            self._rest(slot, action.queue)

    def _listen_to(self, slot: VirtioSlot, queue: int, fd: int) -> None:
        kicked, gone = partial(self._happen, Kicked(slot, queue)), partial(self._rest, slot, queue)
        kick = self._kicks[slot, queue] = Kick(fd, self._halt_poll, kicked, gone)
        self._halt_poll.join(kick)
        self._loop.add_reader(fd, kick.woken)

    def _rest(self, slot: VirtioSlot, queue: int) -> None:
        kick = self._kicks.pop((slot, queue), None)
        if kick is not None:
            kick.closed = True
            self._halt_poll.leave(kick)
            self._loop.remove_reader(kick.fd)


class Kick:
    """The kicks of a queue that runs.

    Args:
        fd: Where they come.
        halt_poll: Polls this one, and others.
        kicked: Called for each.
        gone: Called when none can come any more.

    Attributes:
        closed: Whether the descriptor may be another's by now.
    """

    def __init__(self, fd: int, halt_poll: HaltPoll, kicked: Callable[[], object], gone: Callable[[], object]) -> None:
        self.fd = fd
        self.closed = False
        self._halt_poll = halt_poll
        self._kicked = kicked
        self._gone = gone
        # To read what is not there raises, which costs more than a look, and waits if the front end has made it so.
        looker = select.poll()
        looker.register(fd, select.POLLIN)
        self._look = looker.poll

    def drain_pending(self) -> bool:
        """Tell of kicks that have come since the last time; False if none has."""
        if self.closed or not self._look(0):
            return False
        try:
            there = read_eventfd(self.fd)
        except EventGoneError:
            self._gone()
            return False
        if there:
            self._kicked()
        return there

    def woken(self) -> None:
        """The descriptor is readable."""
        self._halt_poll.woken()
        self.drain_pending()
        self._halt_poll.poll()


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
