"""The bare side: ZeroMQ sockets over ipc that block, without codec, session or loop.

What any chain of processes over ZeroMQ costs at least. ``python -m iovirt_dist.bench.bare echo ENDPOINT`` answers what
it gets; ``... relay ENDPOINT NEXT`` passes messages on to NEXT and answers back.
"""

from __future__ import annotations

import sys
import time

import zmq

from iovirt_dist.errors import LocalError

PAYLOAD = bytes(32)
"""As long as the envelope of a trap."""
ANSWER_WITHIN_MS = 10_000


class BareClient:
    """Sends a message and waits for the answer.

    Args:
        endpoint: Of an echo or relay.
    """

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, ANSWER_WITHIN_MS)
        self._socket.connect(endpoint)

    def round_trip_us(self) -> float:
        """Microseconds of one round trip.

        Raises:
            LocalError: Nobody answers.
        """
        send, receive = self._socket.send, self._socket.recv
        started_ns = time.perf_counter_ns()
        send(PAYLOAD)
        try:
            receive()
        except zmq.Again:
            raise LocalError("the bare side does not answer") from None
        return (time.perf_counter_ns() - started_ns) / 1000

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
        self._context.term()


def echo(endpoint: str) -> None:
    """Answer every message with itself, for ever."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(endpoint)
    while True:
        socket.send_multipart(socket.recv_multipart())


def relay(endpoint: str, onward: str) -> None:
    """Pass messages on, and their answers back, for ever."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(endpoint)
    back.connect(onward)
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    while True:
        for source, _ in poller.poll():
            other = back if source is front else front
            while True:
                try:
                    message = source.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                other.send_multipart(message)


if __name__ == "__main__":
    kind, *endpoints = sys.argv[1:]
    if kind == "echo":
        echo(*endpoints)
    else:
        relay(*endpoints)
