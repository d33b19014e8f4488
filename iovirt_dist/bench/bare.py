"""The bare side: ZeroMQ sockets over ipc that block, without codec, session or loop.

What any chain of processes over ZeroMQ costs at least. ``python -m iovirt_dist.bench.bare echo ENDPOINT`` answers what
it gets; ``... answer ENDPOINT`` answers with as many bytes as the message's first four say; ``... relay ENDPOINT NEXT``
passes messages on to NEXT and answers back.
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

    def messages_per_s(self, out_bytes: int, back_bytes: int, in_flight: int, seconds: float) -> float:
        """Messages a second, each with its answer.

        Args:
            out_bytes: Length of a message, at least 4.
            back_bytes: Length of its answer, if `answer` is at the end.
            in_flight: Messages that are not answered yet, at most.
            seconds: How long.

        Raises:
            LocalError: Nobody answers.
        """
        send, receive = self._socket.send, self._socket.recv
        message = back_bytes.to_bytes(4, "little").ljust(out_bytes, b"\0")
        answered = 0
        started = now = time.perf_counter()
        try:
            for _ in range(in_flight):
                send(message)
            while now - started < seconds:
                receive()
                send(message)
                answered += 1
                now = time.perf_counter()
            for _ in range(in_flight):
                receive()
        except zmq.Again:
            raise LocalError("the bare side does not answer") from None
        return answered / (now - started)

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


def answer(endpoint: str) -> None:
    """Answer every message with zeroes, as many bytes as its first four say (little-endian), for ever."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(endpoint)
    answers: dict[bytes, bytes] = {}
    while True:
        *addresses, message = socket.recv_multipart()
        wanted = message[:4]
        if wanted not in answers:
            answers[wanted] = bytes(int.from_bytes(wanted, "little"))
        socket.send_multipart([*addresses, answers[wanted]])


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
    if kind == "relay":
        relay(*endpoints)
    else:
        (echo if kind == "echo" else answer)(*endpoints)
