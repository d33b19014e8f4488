"""The back end of one device: front ends come and go, one at a time, and their messages are carried out in order.

Theory of operation. A message is carried out as soon as it comes, unless something is awaited: the device is not known
yet, a queue has been told to stop, or the device to be reset. Then it waits, with all that follow it, in a queue that
has a bound. What remains to be done for the message before, its acknowledgement above all, is a list of steps that go
on when nothing is awaited any more. So a front end never hears that a queue is stopped while somebody walks it.

A request that fails is counted and told to the front end if it asked for that (section "REPLY_ACK"). If it did not, it
would go on as though we had done what it said; then the connection is closed, unless nothing depends on the request.
What is no message at all closes the connection, too.

When a connection is gone nothing of it is left but queues that have yet to stop; a new front end waits for them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from iovirt_dist.errors import DecodeError, LocalError, PeerError
from iovirt_dist.gateway.vhost_user.actions import (
    Action,
    CloseFds,
    Disconnect,
    Note,
    QueueStopping,
    Reset,
    Send,
    SendRequest,
    Signal,
)
from iovirt_dist.gateway.vhost_user.connection import KEEPS_FDS, Connection
from iovirt_dist.gateway.vhost_user.decoding import decode
from iovirt_dist.gateway.vhost_user.device import NO_FACTS, DeviceFacts
from iovirt_dist.gateway.vhost_user.memory import Mapper, RegionMemory
from iovirt_dist.gateway.vhost_user.messages import (
    OWN_REPLY,
    BackendRequest,
    Inflight,
    Message,
    ProtocolFeature,
    Request,
    VringState,
    backend_request,
    reply,
    reply_inflight,
    reply_number,
)
from iovirt_dist.gateway.vhost_user.vring import RingState, Vring

MAX_WAITING: Final = 64
"""Messages that wait; a front end that sends more is cut off."""
MAX_NOTES: Final = 16
"""Refusals of one connection that are told to the log."""

_FAILED: Final = 1
_MAY_FAIL_UNTOLD: Final = frozenset({Request.SET_CONFIG, Request.SET_STATUS, Request.SET_VRING_ERR})
"""Requests on which nothing depends that the front end does next."""


@dataclass(slots=True)
class BackendCounts:
    """What happened at a back end.

    Attributes:
        connections: Front ends that came.
        messages: That were looked at.
        rejects: Of these, by reason, those that were not carried out.
    """

    connections: int = 0
    messages: int = 0
    rejects: Counter[str] = field(default_factory=Counter)


class Backend:
    """The back end of one device.

    Args:
        mapper: Maps what front ends share.

    Attributes:
        counts: What happened.
        connected: Whether there is a front end.
    """

    def __init__(self, mapper: Mapper) -> None:
        self.counts = BackendCounts()
        self.connected = False
        self._mapper = mapper
        self._facts: DeviceFacts | None = None
        self._connection = Connection(mapper, NO_FACTS)
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._steps: deque[Callable[[], list[Action]]] = deque()
        self._stopping: dict[int, Vring] = {}
        self._resetting = False
        self._notes = 0

    # --- what the front end has told

    @property
    def features(self) -> int:
        """Negotiated features of the device."""
        return self._connection.features

    @property
    def protocol_features(self) -> int:
        """Negotiated protocol features."""
        return self._connection.protocol_features

    @property
    def status(self) -> int:
        """Device status register."""
        return self._connection.status

    @property
    def memory(self) -> RegionMemory:
        """Guest memory; another one with each connection, while that of the last stays valid for who has it."""
        return self._connection.memory

    @property
    def queues(self) -> list[Vring]:
        """All queues."""
        return self._connection.queues

    # --- events

    def describe(self, facts: DeviceFacts) -> list[Action]:
        """The device is known, or has changed: the front end is told of a new configuration space.

        A device with other features or queues is another one: the front end must connect again.
        """
        old, self._facts = self._facts, facts
        if old is None:
            self._connection = Connection(self._mapper, facts)
            return self._run()
        if old == facts:
            return []
        if old[:2] != facts[:2]:
            return self._drop("device-changed")
        self._connection.facts = facts
        fd = self._connection.request_fd
        if fd is None or not self._connection.negotiated(ProtocolFeature.CONFIG):
            return []
        return [SendRequest(fd, backend_request(BackendRequest.CONFIG_CHANGE_MSG))]

    def connect(self) -> list[Action]:
        """A front end came.

        Raises:
            LocalError: There is one already.
        """
        if self.connected:
            raise LocalError("a front end is connected already")
        self.connected = True
        self.counts.connections += 1
        self._notes = 0
        return []

    def disconnect(self) -> list[Action]:
        """The front end went; does nothing if that is known."""
        return self._forget() if self.connected else []

    def receive(self, data: bytes, fds: Sequence[int]) -> list[Action]:
        """A message came.

        Args:
            data: All of it, header and payload.
            fds: Descriptors that came with it; ours from now on.
        """
        files = tuple(fds)
        if not self.connected:
            return _close(files)
        if len(self._waiting) >= MAX_WAITING:
            self.counts.rejects["flood"] += 1
            return _close(files) + self._drop("flood")
        self._waiting.append((data, files))
        return self._run()

    def queue_stopped(self, queue: int, base: int) -> list[Action]:
        """A queue is walked no more; answers `QueueStopping`.

        Args:
            queue: Its number.
            base: Available index up to which requests were taken, 0..65535.
        """
        vring = self._stopping.pop(queue, None)
        if vring is not None:
            vring.base = base
            vring.state = RingState.STOPPED
        return self._run()

    def device_reset(self) -> list[Action]:
        """The device was reset; answers `Reset`."""
        if not self._resetting:
            return []
        self._resetting = False
        return self._connection.reset_rings() + self._run()

    def queue_broken(self, queue: int) -> list[Action]:
        """A ring cannot be walked; the front end is told if it wants to be."""
        if queue >= len(self.queues):
            return []
        fd = self.queues[queue].err
        return [] if fd is None else [Signal(fd)]

    # --- in order

    @property
    def _awaiting(self) -> bool:
        return self._facts is None or self._resetting or bool(self._stopping)

    def _run(self) -> list[Action]:
        """Go on until something is awaited, or there is nothing left to do."""
        actions: list[Action] = []
        while not self._awaiting and (self._steps or self._waiting):
            if self._steps:
                actions += self._steps.popleft()()
            else:
                actions += self._perform(*self._waiting.popleft())
        return actions

    def _perform(self, data: bytes, files: tuple[int, ...]) -> list[Action]:
        self.counts.messages += 1
        try:
            message = decode(data, files)
        except DecodeError as error:
            self.counts.rejects[error.reason] += 1
            return [*_close(files), *self._note("a message", error), *self._drop(error.reason)]
        if not message.known:
            return _close(files) + self._refuse(message, PeerError("unknown-request", str(message.request)))
        try:
            actions = self._connection.handle(message)
        except PeerError as error:
            return _close(files) + self._refuse(message, error)
        if message.request not in KEEPS_FDS:
            actions += _close(files)
        self._stopping.update((a.queue, self.queues[a.queue]) for a in actions if isinstance(a, QueueStopping))
        if message.request is Request.RESET_DEVICE:
            self._steps.append(self._reset)
        self._steps.append(partial(self._acknowledge, message))
        return actions

    def _reset(self) -> list[Action]:
        self._resetting = True
        return [Reset()]

    def _acknowledge(self, message: Message) -> list[Action]:
        if message.request is Request.GET_VRING_BASE and isinstance(message.body, VringState):
            return self._connection.base_reply(message.body.queue)
        if self._wants_reply(message):
            return [Send(reply_number(message.request, 0))]
        return []

    def _wants_reply(self, message: Message) -> bool:
        wanted = message.need_reply and message.request not in OWN_REPLY
        return wanted and self._connection.negotiated(ProtocolFeature.REPLY_ACK)

    def _refuse(self, message: Message, error: PeerError) -> list[Action]:
        """Count a request that is not carried out, and say so to the front end if there is a way."""
        self.counts.rejects[error.reason] += 1
        request = message.request
        actions = self._note(request.name if isinstance(request, Request) else f"request {request}", error)
        if request is Request.GET_CONFIG:
            actions.append(Send(reply(request, b"")))
        elif request is Request.GET_INFLIGHT_FD and isinstance(message.body, Inflight):
            actions.append(Send(reply_inflight(request, Inflight(0, 0, 0, 0, message.body.packed_bytes))))
        elif self._wants_reply(message):
            actions.append(Send(reply_number(request, _FAILED)))
        elif message.known and request not in _MAY_FAIL_UNTOLD:
            actions += self._drop(error.reason)
        return actions

    def _note(self, what: str, error: PeerError) -> list[Action]:
        self._notes += 1
        return [Note(f"{what} refused: {error}")] if self._notes <= MAX_NOTES else []

    # --- the end of a connection

    def _drop(self, reason: str) -> list[Action]:
        return [*self._forget(), Disconnect(reason)] if self.connected else self._forget()

    def _forget(self) -> list[Action]:
        """Forget the front end, and be ready for the next."""
        self.connected = False
        actions = self._connection.stop()
        self._stopping.update((a.queue, self.queues[a.queue]) for a in actions if isinstance(a, QueueStopping))
        actions += _close(self._connection.fds + tuple(fd for _, files in self._waiting for fd in files))
        self._waiting.clear()
        self._steps.clear()
        self._connection = Connection(self._mapper, self._facts or NO_FACTS)
        return actions


def _close(fds: tuple[int, ...]) -> list[Action]:
    return [CloseFds(fds)] if fds else []
