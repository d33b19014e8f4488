"""What is ZeroMQ's own: socket options, bad peers, large frames, leftovers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from iovirt_dist.errors import EndpointError
from iovirt_dist.transport import zeromq
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.zeromq import ZERO_COPY_BYTES, ZeromqPort, uncopied
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_FRAMES

PATIENCE_MS = 10_000


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[tuple[ZeromqPort, ZeromqPort]]:
    """A listener and a dialler on ipc."""
    endpoint = f"ipc://{tmp_path}/run/a.sock"
    pair = zeromq.listen(endpoint), zeromq.dial(endpoint)
    yield pair
    for port in pair:
        port.close()


@pytest.fixture
def tcp() -> Iterator[ZeromqPort]:
    """A listener on a free TCP port."""
    port = zeromq.listen("tcp://127.0.0.1:*")
    yield port
    port.close()


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while not (done := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.002)
    return done


def test_free_port_is_named_by_the_endpoint(tcp: ZeromqPort) -> None:
    """A listener on any port says which one it got."""
    assert tcp.endpoint.startswith("tcp://127.0.0.1:")
    assert int(tcp.endpoint.rpartition(":")[2]) > 0


def test_close_leaves_no_file(tmp_path: Path) -> None:
    """Neither socket nor lock stays behind."""
    directory = tmp_path / "run"
    port = zeromq.listen(f"ipc://{directory}/a.sock")
    during = sorted(path.name for path in directory.iterdir())
    port.close()
    assert during == ["a.sock", "a.sock.lock"]
    assert list(directory.iterdir()) == []


def test_large_received_frame_is_not_copied_small_is(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """Large frames are views of ZeroMQ's own memory."""
    listener, dialler = ports
    dialler.send(ONLY_PEER, [b"head", bytes(ZERO_COPY_BYTES), bytes(ZERO_COPY_BYTES - 1)])
    message = listener.receive_wait(PATIENCE_MS)
    assert message is not None
    assert [type(frame) for frame in message[1]] == [bytes, memoryview, bytes]


def test_oversized_frame_ends_the_connection_of_its_sender_only(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """A frame beyond the limit is refused before it is allocated; others go on, and the sender reconnects."""
    listener, dialler = ports
    other = zeromq.dial(listener.endpoint)
    dialler.send(ONLY_PEER, [bytes(MAX_PAYLOAD_BYTES + 1)])
    other.send(ONLY_PEER, [b"fine"])
    message = listener.receive_wait(PATIENCE_MS)
    other.close()
    assert message is not None
    assert message[1] == [b"fine"]
    assert until(lambda: dialler.send(ONLY_PEER, [b"again"]) and listener.receive_wait(20) is not None)


def test_message_of_endless_frames_is_cut_short(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """One frame more than allowed is kept, so that the decoder refuses it; the rest is thrown away."""
    listener, dialler = ports
    dialler.send(ONLY_PEER, [b"x"] * (3 * MAX_PAYLOAD_FRAMES))
    dialler.send(ONLY_PEER, [b"next"])
    message = listener.receive_wait(PATIENCE_MS)
    assert message is not None
    assert MAX_PAYLOAD_FRAMES + 1 < len(message[1]) <= MAX_PAYLOAD_FRAMES + 2
    assert until(listener.pending)
    after = listener.receive()
    assert after is not None
    assert after[1] == [b"next"]


def test_garbage_on_the_socket_harms_nobody(tcp: ZeromqPort) -> None:
    """Bytes that are no ZeroMQ at all are refused below us."""
    host, port = tcp.endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        dialler = zeromq.dial(tcp.endpoint)
        dialler.send(ONLY_PEER, [b"fine"])
        message = tcp.receive_wait(PATIENCE_MS)
        dialler.close()
    assert message is not None
    assert message[1] == [b"fine"]


def test_peer_that_chooses_the_address_of_another_steals_nothing(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """A second peer with the first one's routing id is not heard; the first goes on."""
    listener, dialler = ports
    dialler.send(ONLY_PEER, [b"first"])
    message = listener.receive_wait(PATIENCE_MS)
    assert message is not None
    thief: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    thief.setsockopt(zmq.LINGER, 0)
    thief.setsockopt(zmq.ROUTING_ID, b"\x01" + message[0][1:])
    thief.connect(listener.endpoint)
    thief.send(b"mine")
    assert listener.receive_wait(PATIENCE_MS) is not None
    listener.send(message[0], [b"yours"])
    assert dialler.receive_wait(PATIENCE_MS) is not None
    stolen = thief.poll(20)
    thief.close()
    assert not stolen


def test_wait_ends_when_a_message_comes(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """A thread that waits is woken by the message, long before its timeout."""
    listener, dialler = ports
    received: list[object] = []
    waiter = threading.Thread(target=lambda: received.append(listener.receive_wait(PATIENCE_MS)))
    waiter.start()
    dialler.send(ONLY_PEER, [b"x"])
    waiter.join()
    assert received[0] is not None


@pytest.mark.parametrize("endpoint", ["", "ipc:/x", "tcp://127.0.0.1", "udp://127.0.0.1:1", "tcp://127.0.0.1:99999"])
def test_malformed_address_is_one_line(endpoint: str) -> None:
    """What, where and what to do, in one line, for both sides."""
    for opening in (zeromq.listen, zeromq.dial):
        with pytest.raises(EndpointError) as caught:
            opening(endpoint)
        assert "\n" not in str(caught.value)
        assert caught.value.fix


def test_tcp_address_of_another_host_is_an_error() -> None:
    """One can only listen at one's own addresses (192.0.2.0/24 is for documentation, RFC 5737)."""
    with pytest.raises(EndpointError, match="not on this host"):
        zeromq.listen("tcp://192.0.2.1:5555")


@pytest.mark.skipif(not Path("/proc/net/if_inet6").is_file(), reason="no IPv6 on this machine")
def test_ipv6_address_in_brackets_is_listened_at_and_dialled() -> None:
    """As `topology.resolve_hosts` writes it."""
    listener = zeromq.listen("tcp://[::1]:*")
    dialler = zeromq.dial(listener.endpoint)
    try:
        dialler.send(ONLY_PEER, [b"hello"])
        received = listener.receive_wait(PATIENCE_MS)
    finally:
        dialler.close()
        listener.close()
    assert received is not None
    assert received[1] == [b"hello"]


def test_large_frame_that_came_from_zeromq_goes_on_as_it_is(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """More than once; a part of one, and other memory, are lent."""
    listening, dialling = ports
    large = bytes(range(256)) * (ZERO_COPY_BYTES // 256)
    dialling.send(ONLY_PEER, [b"head", large])
    received = listening.receive_wait(PATIENCE_MS)
    assert received is not None
    peer, (_, frame) = received

    for payload in (frame, frame, memoryview(large)):
        listening.send(peer, [b"head", payload])
    back = [dialling.receive_wait(PATIENCE_MS) for _ in range(3)]

    assert [message and bytes(message[1][1]) for message in back] == [large] * 3
    assert isinstance(uncopied(frame), zmq.Frame)
    assert uncopied(large) is large
    assert not isinstance(uncopied(memoryview(frame)[1:]), zmq.Frame)
