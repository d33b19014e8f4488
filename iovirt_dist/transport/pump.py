"""Drains a port into an asyncio loop without losing an edge.

A port's descriptor is edge-triggered, and any send, receive or question to the socket may consume the edge (ZeroMQ
guide, "ZMQ_FD"; zmq_getsockopt(3)). So: receive until there is nothing; after sending outside of `on_frames`, ask
again (`Pump.kick`); and give the loop back after a batch, or one busy peer would starve timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.port import Port
from iovirt_dist.wire.codec import Buffer

DEFAULT_BATCH = 64


class Pump:
    """Hands every message of a port to a callback, in the loop's thread.

    Args:
        loop: Loop of this thread.
        port: A port with a descriptor.
        on_frames: Called with address and frames of each message.
        on_drained: Called after each batch, for work that is done once per batch (timers); if it sends, it kicks the
            pump of the port that it sent on.
        batch: Most messages before the loop gets its turn.
        halt_poll: Polls this port and others of the thread before it sleeps; None: it sleeps at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: Port,
        on_frames: Callable[[bytes, list[Buffer]], object],
        on_drained: Callable[[], None] | None,
        batch: int,
        halt_poll: HaltPoll | None = None,
    ) -> None:
        self._loop = loop
        self._port = port
        self._on_frames = on_frames
        self._on_drained = on_drained
        self._batch = batch
        self._scheduled: asyncio.Handle | None = None
        self._closed = False
        self._halt_poll = halt_poll
        if halt_poll is not None:
            halt_poll.join(self)
        loop.add_reader(port.fileno(), self._woken)
        self._reschedule()

    def kick(self) -> None:
        """Look again: call it in the loop's thread after sending on the port outside of its own `on_frames`."""
        if self._scheduled is None and not self._closed and self._port.pending():
            self._reschedule()

    def drain_pending(self) -> bool:
        """Hand over a batch in the loop's thread if there is anything; False if there is not."""
        if self._closed or not self._port.pending():
            return False
        self._drain()
        return True

    def close(self) -> None:
        """Stop; the port stays open."""
        if not self._closed:
            self._closed = True
            if self._halt_poll is not None:
                self._halt_poll.leave(self)
            self._loop.remove_reader(self._port.fileno())
            if self._scheduled is not None:
                self._scheduled.cancel()

    def _reschedule(self) -> None:
        if self._scheduled is None and not self._closed:
            self._scheduled = self._loop.call_soon(self._drain)

    def _woken(self) -> None:
        """The descriptor is readable."""
        halt_poll = self._halt_poll
        if halt_poll is None:
            self._drain()
        else:
            halt_poll.woken()
            self._drain()
            halt_poll.poll()

    def _drain(self) -> None:
        """Hand over a batch. If the callback raises, the rest is handed over in the loop's next turn."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        receive, on_frames = self._port.receive, self._on_frames
        more = True
        try:
            for _ in range(self._batch):
                message = receive()
                if message is None:
                    more = False
                    break
                on_frames(*message)
                if self._closed:
                    return
            if self._on_drained is not None:
                self._on_drained()
        finally:
            if more:
                self._reschedule()


def attach(
    loop: asyncio.AbstractEventLoop,
    port: Port,
    on_frames: Callable[[bytes, list[Buffer]], object],
    on_drained: Callable[[], None] | None = None,
    batch: int = DEFAULT_BATCH,
    halt_poll: HaltPoll | None = None,
) -> Pump:
    """Start a `Pump`; messages that are there already are handed over in the loop's next turn."""
    return Pump(loop, port, on_frames, on_drained, batch, halt_poll)
