"""Who is let in: decisions on ZAP requests, and the thread that makes them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils.monitor import recv_monitor_message

from iovirt_dist.errors import EndpointError
from iovirt_dist.transport import zap, zeromq
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.zap import Door, judge
from iovirt_dist.transport.zeromq import ZeromqPort, dial, listen
from tests.unit.transport.keys import Ring

PATIENCE_S = 10.0
ALICE = bytes(range(32))


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (done := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.002)
    return done


def request(
    door: Door, key: bytes = ALICE, *, version: bytes = b"1.0", mechanism: bytes = b"CURVE", domain: bytes = b""
) -> list[bytes]:
    """A request as ZeroMQ makes it."""
    return [version, b"7", domain or door.domain, b"127.0.0.1", b"", mechanism, key]


def doors(*clients: dict[bytes, str]) -> tuple[list[Door], dict[bytes, Door]]:
    """Doors, and the same by domain."""
    made = [Door(names) for names in clients]
    return made, {door.domain: door for door in made}


def test_known_key_is_approved_with_its_owners_name() -> None:
    """The user id is what each message of the connection bears."""
    (door,), known = doors({ALICE: "alice"})
    assert judge(request(door), known) == [b"1.0", b"7", b"200", b"OK", b"alice", b""]
    assert not door.refused


def test_unknown_key_is_put_off_and_counted() -> None:
    """It may be known later: status 300 lets its owner try again, 400 would not."""
    (door,), known = doors({ALICE: "alice"})
    assert judge(request(door, bytes(32)), known) == [b"1.0", b"7", b"300", b"unknown-key", b"", b""]
    assert door.refused == {"unknown-key": 1}


def test_key_of_another_door_is_unknown() -> None:
    """Two sockets of a process may serve different peers."""
    (first, second), known = doors({ALICE: "alice"}, {})
    assert judge(request(first), known)[2] == b"200"
    assert judge(request(second), known)[2] == b"300"


def test_replaced_clients_hold_for_the_next_request() -> None:
    """Who may connect can change while the socket listens."""
    (door,), known = doors({})
    before = judge(request(door), known)[2]
    door.clients = {ALICE: "alice"}
    assert (before, judge(request(door), known)[2]) == (b"300", b"200")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mechanism": b"NULL"},
        {"mechanism": b"PLAIN"},
        {"key": b""},
        {"key": ALICE[:31]},
        {"key": ALICE + b"\0"},
        {"domain": b"elsewhere"},
        {"version": b"2.0"},
    ],
)
def test_request_that_is_not_as_it_should_be_is_refused(wrong: dict[str, bytes]) -> None:
    """Whatever is unclear is no approval."""
    (door,), known = doors({ALICE: "alice"})
    assert judge(request(door, **wrong), known)[2] in (b"300", b"500")


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_frames_are_answered_without_approval(frames: list[bytes]) -> None:
    """No request makes the authenticator fail, and none without a known key passes."""
    _, known = doors({ALICE: "alice"})
    assert judge(frames, known)[2] in (b"300", b"500")


@pytest.fixture
def ring() -> Ring:
    """Keys."""
    return Ring()


@pytest.fixture
def listener(ring: Ring) -> Iterator[ZeromqPort]:
    """Listens on a free port, for alice and nobody else."""
    port = listen("tcp://127.0.0.1:*", ring.security("hv", ["alice"]))
    yield port
    port.close()


def greet(listener: ZeromqPort, ring: Ring) -> bytes | None:
    """Let alice say something; returns what arrived."""
    dialler = dial(listener.endpoint, ring.security("alice", ["hv"]), "hv")
    dialler.send(ONLY_PEER, [b"it is me"])
    message = listener.receive_wait(int(PATIENCE_S * 1000))
    dialler.close()
    return bytes(message[1][0]) if message is not None else None


def test_stranger_with_a_key_of_its_own_is_refused_and_counted(listener: ZeromqPort, ring: Ring) -> None:
    """Nothing of what it says arrives; alice does."""
    stranger = dial(listener.endpoint, ring.security("mallory", ["hv"]), "hv")
    stranger.send(ONLY_PEER, [b"hello"])
    assert until(lambda: listener.refused.get("unknown-key", 0) > 0)
    assert greet(listener, ring) == b"it is me"
    stranger.close()


def test_stranger_without_a_key_is_refused_and_counted(listener: ZeromqPort, ring: Ring) -> None:
    """So is one who speaks ZeroMQ without CURVE."""
    stranger = dial(listener.endpoint)
    stranger.send(ONLY_PEER, [b"hello"])
    assert until(lambda: sum(listener.refused[reason] for reason in ("bad-handshake", "broken-handshake")) > 0)
    assert greet(listener, ring) == b"it is me"
    stranger.close()


def test_dialler_that_expects_another_server_does_not_speak_to_this_one(listener: ZeromqPort, ring: Ring) -> None:
    """A man in the middle without the server's key gets nothing to read."""
    dialler = dial(listener.endpoint, ring.security("alice", ["other"]), "other")
    dialler.send(ONLY_PEER, [b"secret"])
    assert until(lambda: sum(listener.refused[reason] for reason in ("bad-handshake", "broken-handshake")) > 0)
    assert greet(listener, ring) == b"it is me"
    dialler.close()


def test_trusted_name_that_is_no_client_is_refused(ring: Ring) -> None:
    """A hypervisor trusts its controllers, which does not let them connect to it as guests."""
    port = listen("tcp://127.0.0.1:*", ring.security("hv", ["alice", "disk0"]), ["alice"])
    controller = dial(port.endpoint, ring.security("disk0", ["hv"]), "hv")
    controller.send(ONLY_PEER, [b"hello"])
    assert until(lambda: port.refused.get("unknown-key", 0) > 0)
    assert greet(port, ring) == b"it is me"
    for each in (controller, port):
        each.close()


def test_refused_peer_gets_in_once_it_is_admitted(
    listener: ZeromqPort, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dialler that came too early need not be started again."""
    monkeypatch.setattr(zeromq, "HANDSHAKE_MS", 300)
    early = dial(listener.endpoint, ring.security("bob", ["hv"]), "hv")
    early.send(ONLY_PEER, [b"early"])
    refused = until(lambda: listener.refused.get("unknown-key", 0) > 0)
    listener.admit(ring.security("hv", ["alice", "bob"]))
    message = listener.receive_wait(int(PATIENCE_S * 1000))
    assert refused
    assert message is not None
    assert listener.identity(message[0]) == "bob"
    early.close()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.1 (rfc.zeromq.org/spec/37), mechanism CURVE."""


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00",
        b"\xff" + bytes(8) + b"\x7f\x01",
        GREETING[:33],
        GREETING + b"\x04\xc8\x05HELLO" + bytes(194),
        GREETING + b"\x04\xff",
        GREETING + b"\x06" + b"\xff" * 8,
        GREETING + b"\x00\x05data!",
        GREETING + os.urandom(4096),
    ],
    ids=["nothing", "http", "zmtp1", "zmtp2", "half", "hello", "short", "huge", "early-message", "noise"],
)
def test_hostile_handshake_harms_nobody(listener: ZeromqPort, ring: Ring, hostile: bytes) -> None:
    """Whatever bytes come: nothing is delivered of them, and alice is served as before."""
    port = int(listener.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(hostile)
        assert greet(listener, ring) == b"it is me"
    assert greet(listener, ring) == b"it is me"
    assert listener.receive() is None


class Tape(threading.Thread):
    """Stands between a dialler and a listener, and keeps what the dialler sends.

    Args:
        port: The listener's.

    Attributes:
        endpoint: Where to dial it.
        said: What the dialler has sent, in pieces.
        repeating: The next piece is sent on twice.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._port = port
        self._open = True
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.said: list[bytes] = []
        self.repeating = False
        self.start()

    def run(self) -> None:
        """Serve one connection at a time."""
        while self._open:
            with suppress(OSError):
                client, _ = self._server.accept()
                with client, socket.create_connection(("127.0.0.1", self._port)) as server:
                    self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._return, args=(server, client), daemon=True)
        back.start()
        while data := client.recv(65536):
            self.said.append(data)
            server.sendall(data)
            if self.repeating:
                self.repeating = False
                server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)
        back.join()

    @staticmethod
    def _return(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self._open = False
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.join(PATIENCE_S)


@pytest.fixture
def tape(listener: ZeromqPort) -> Iterator[Tape]:
    """In front of the listener."""
    tape = Tape(int(listener.endpoint.rpartition(":")[2]))
    yield tape
    tape.close()


def test_recorded_connection_replayed_is_refused(listener: ZeromqPort, ring: Ring, tape: Tape) -> None:
    """Keys are made for each connection anew, so the same bytes mean nothing in another one."""
    dialler = dial(tape.endpoint, ring.security("alice", ["hv"]), "hv")
    dialler.send(ONLY_PEER, [b"pay mallory"])
    first = listener.receive_wait(int(PATIENCE_S * 1000))
    dialler.close()
    failed = sum(listener.refused.values())
    with socket.create_connection(("127.0.0.1", int(listener.endpoint.rpartition(":")[2]))) as raw:
        raw.sendall(b"".join(tape.said))
        assert until(lambda: sum(listener.refused.values()) > failed)
    assert first is not None
    assert listener.receive() is None


def test_message_repeated_in_its_own_connection_is_delivered_once(
    listener: ZeromqPort, ring: Ring, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message has a number of its own under the seal; a copy ends the connection, and the dialler comes back.

    It notices by its heartbeats, as the listener says nothing any more.
    """
    monkeypatch.setattr(zeromq, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(zeromq, "HEARTBEAT_TIMEOUT_MS", 300)
    dialler = dial(tape.endpoint, ring.security("alice", ["hv"]), "hv")
    dialler.send(ONLY_PEER, [b"first"])
    first = listener.receive_wait(int(PATIENCE_S * 1000))
    tape.repeating = True
    dialler.send(ONLY_PEER, [b"second"])
    second = listener.receive_wait(int(PATIENCE_S * 1000))
    heard = []

    def comes_back() -> bool:
        dialler.send(ONLY_PEER, [b"third"])
        message = listener.receive_wait(20)
        heard.append(message and bytes(message[1][0]))
        return message is not None and message[0] != second_address

    assert first is not None
    assert second is not None
    second_address = second[0]
    assert until(comes_back)
    assert set(heard) <= {b"third", None}
    dialler.close()


def test_thread_lives_from_the_first_door_to_the_last(ring: Ring) -> None:
    """A process that listens nowhere with keys has no thread for it, and leaves none."""
    running = [thread.name for thread in threading.enumerate()].count
    security = ring.security("hv", ["alice"])
    counts = [running("zap")]
    ports = [listen("tcp://127.0.0.1:*", security) for _ in range(2)]
    for port in ports:
        counts.append([thread.name for thread in threading.enumerate()].count("zap"))
        port.close()
    counts.append([thread.name for thread in threading.enumerate()].count("zap"))
    assert counts == [0, 1, 1, 0]


def test_context_with_an_authenticator_of_somebody_else_is_an_error(ring: Ring) -> None:
    """Nobody listens with keys where it is not ours to say who may come in."""
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.REP) as other:
        other.bind("inproc://zeromq.zap.01")
        with pytest.raises(EndpointError, match="in use"):
            listen("tcp://127.0.0.1:*", ring.security("hv"), context=context)


class Nobody:
    """In place of the authenticator: there is none."""

    def __init__(self, context: object) -> None:
        pass

    def open(self, door: Door, socket: object) -> None:
        """Do nothing."""

    def shut(self, door: Door, socket: object) -> bool:
        """Be forgotten."""
        return True


def test_without_an_authenticator_nobody_is_let_in(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket insists on an answer: were the thread gone, not even alice would be believed."""
    monkeypatch.setattr(zap, "Doorkeeper", Nobody)
    port = listen("tcp://127.0.0.1:*", ring.security("hv", ["alice"]))
    dialler = dial(port.endpoint, ring.security("alice", ["hv"]), "hv")
    with dialler._socket.get_monitor_socket(int(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)) as events:
        dialler.send(ONLY_PEER, [b"let me in"])
        assert events.poll(int(PATIENCE_S * 1000))
        event = recv_monitor_message(events)["event"]
        dialler._socket.disable_monitor()
    assert event == zmq.EVENT_DISCONNECTED
    assert port.receive() is None
    for each in (dialler, port):
        each.close()
