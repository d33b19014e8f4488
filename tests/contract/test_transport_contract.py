"""What the layers above may rely on, whatever carries the bytes: every transport runs this suite."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.transport import zeromq
from iovirt_dist.transport.memory import MemoryNetwork
from iovirt_dist.transport.port import ONLY_PEER, ListeningPort, Port, key_fits
from iovirt_dist.wire.acceptor import Acceptor, PeerState
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import SendFrames, SessionConfig
from tests.unit.transport.keys import Ring

PATIENCE_S = 10.0


@dataclass
class Transport:
    """A transport under test; closes what it opened.

    Attributes:
        endpoint: Where to listen.
        open_listener: Opens a listening port there.
        open_dialler: Opens a dialling one, of a peer that is known as ``alice`` where peers are known.
        known: Whether peers are known.
        ports: What was opened.
    """

    endpoint: str
    open_listener: Callable[[str], ListeningPort]
    open_dialler: Callable[[str], Port]
    known: bool
    ports: list[Port] = field(default_factory=list)

    def listen(self) -> ListeningPort:
        """Open a listening port; later diallers dial where it listens."""
        port = self.open_listener(self.endpoint)
        self.endpoint = port.endpoint
        self.ports.append(port)
        return port

    def dial(self) -> Port:
        """Open a dialling port."""
        port = self.open_dialler(self.endpoint)
        self.ports.append(port)
        return port


@pytest.fixture(params=["zeromq-ipc", "zeromq-tcp", "zeromq-curve", "memory"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    """Each transport in turn."""
    network, ring = MemoryNetwork(lambda: 0), Ring()
    listen = partial(zeromq.listen, security=ring.security("hv", ["alice"]))
    dial = partial(zeromq.dial, security=ring.security("alice", ["hv"]), server="hv")
    kinds = {
        "zeromq-ipc": Transport(f"ipc://{tmp_path}/run/a.sock", zeromq.listen, zeromq.dial, False),
        "zeromq-tcp": Transport("tcp://127.0.0.1:*", zeromq.listen, zeromq.dial, False),
        "zeromq-curve": Transport("tcp://127.0.0.1:*", listen, dial, True),
        "memory": Transport("hypervisor", network.listen, partial(network.dial, name="alice"), True),
    }
    chosen = kinds[request.param]
    yield chosen
    for port in chosen.ports:
        port.close()


def take(port: Port) -> tuple[bytes, list[bytes]]:
    """The next message of a port, waited for."""
    message = port.receive_wait(int(PATIENCE_S * 1000))
    assert message is not None
    peer, frames = message
    return peer, [bytes(frame) for frame in frames]


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (done := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.002)
    return done


def test_message_sent_by_dialler_arrives_whole(transport: Transport) -> None:
    """All frames of a message come together, in order, empty ones too."""
    listener, dialler = transport.listen(), transport.dial()
    sent: list[Buffer] = [b"head", b"", bytearray(b"data"), memoryview(b"view")]
    assert dialler.send(ONLY_PEER, sent)
    assert take(listener)[1] == [b"head", b"", b"data", b"view"]


def test_reply_to_the_address_received_reaches_the_sender(transport: Transport) -> None:
    """A listener answers at the address that came with the message; a dialler's peer is the empty address."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"question"])
    peer, _ = take(listener)
    assert listener.send(peer, [b"answer"])
    assert take(dialler) == (ONLY_PEER, [b"answer"])


def test_two_diallers_have_different_addresses(transport: Transport) -> None:
    """Each reply reaches the right one of two peers."""
    listener, first, second = transport.listen(), transport.dial(), transport.dial()
    first.send(ONLY_PEER, [b"1"])
    first_address, _ = take(listener)
    second.send(ONLY_PEER, [b"2"])
    second_address, _ = take(listener)
    listener.send(second_address, [b"to 2"])
    listener.send(first_address, [b"to 1"])
    assert first_address != second_address
    assert take(first)[1] == [b"to 1"]
    assert take(second)[1] == [b"to 2"]


def test_many_messages_keep_their_order(transport: Transport) -> None:
    """A thousand messages arrive in the order in which they were sent."""
    listener, dialler = transport.listen(), transport.dial()
    sent = [str(number).encode() for number in range(1000)]
    accepted = [dialler.send(ONLY_PEER, [frame]) for frame in sent]
    assert all(accepted)
    assert [take(listener)[1][0] for _ in sent] == sent


@pytest.mark.parametrize("size", [(64 << 10) - 1, 64 << 10, 1 << 20])
def test_large_frames_arrive_unchanged_both_ways(transport: Transport, size: int) -> None:
    """Frames around and above the size from which nothing is copied are the same at the other end."""
    listener, dialler = transport.listen(), transport.dial()
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    dialler.send(ONLY_PEER, [b"head", memoryview(data), data])
    peer, frames = take(listener)
    listener.send(peer, [b"head", data])
    assert frames == [b"head", data, data]
    assert take(dialler)[1] == [b"head", data]


def test_nothing_received_is_none_at_once(transport: Transport) -> None:
    """Receiving never blocks, and waiting for nothing ends."""
    listener, dialler = transport.listen(), transport.dial()
    assert listener.receive() is None
    assert dialler.receive() is None
    assert not listener.pending()
    assert listener.receive_wait(1) is None


def test_pending_tells_of_a_message_until_it_is_taken(transport: Transport) -> None:
    """Asking takes nothing away."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"x"])
    assert until(listener.pending)
    assert listener.pending()
    take(listener)
    assert not listener.pending()


def test_message_sent_before_anybody_listens_arrives(transport: Transport) -> None:
    """A dialler may come first: what it sends waits for the listener."""
    listener = transport.listen()
    listener.close()
    dialler = transport.dial()
    assert dialler.send(ONLY_PEER, [b"early"])
    later = transport.listen()
    assert take(later)[1] == [b"early"]


def test_dialler_reaches_a_listener_that_came_back(transport: Transport) -> None:
    """After a restart of the listener the dialler is heard again; how much was lost is the session's business."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"before"])
    take(listener)
    listener.close()
    again = transport.listen()
    heard = until(lambda: dialler.send(ONLY_PEER, [b"after"]) and again.receive_wait(20) is not None)
    assert heard


@pytest.mark.parametrize("address", [b"", b"nobody", b"\x00\x01\x02\x03\x04"])
def test_send_to_unknown_peer_is_refused(transport: Transport, address: bytes) -> None:
    """A listener says so when there is nobody at an address."""
    listener = transport.listen()
    assert not listener.send(address, [b"x"])


def test_send_to_another_peer_than_the_dialled_one_is_refused(transport: Transport) -> None:
    """A dialler has one peer."""
    transport.listen()
    assert not transport.dial().send(b"other", [b"x"])


def test_send_to_a_peer_that_closed_is_refused_soon(transport: Transport) -> None:
    """A listener learns that a peer is gone."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"x"])
    peer, _ = take(listener)
    dialler.close()
    assert until(lambda: not listener.send(peer, [b"x"]))


def test_send_without_frames_sends_nothing(transport: Transport) -> None:
    """A session that keeps a message gives no frames; the port has nothing to do."""
    listener, dialler = transport.listen(), transport.dial()
    assert dialler.send(ONLY_PEER, [])
    dialler.send(ONLY_PEER, [b"x"])
    peer, frames = take(listener)
    assert listener.send(peer, [])
    assert frames == [b"x"]
    assert not dialler.pending()


def test_full_pipe_refuses_instead_of_blocking(transport: Transport) -> None:
    """A peer that does not read costs a bounded amount of memory and no time."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"x"])
    peer, _ = take(listener)
    frame = bytes(1024)
    accepted = next(count for count in range(60_000) if not listener.send(peer, [frame]))
    assert accepted >= 4096


def test_closed_port_refuses_and_gives_nothing(transport: Transport) -> None:
    """After closing, once or twice, a port is harmless."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"x"])
    peer, _ = take(listener)
    listener.close()
    listener.close()
    assert not listener.send(peer, [b"x"])
    assert listener.receive() is None
    assert not listener.pending()
    assert listener.receive_wait(0) is None


def test_second_listener_is_refused_and_the_first_unharmed(transport: Transport) -> None:
    """An address in use is an error that names it, and nothing is taken from its owner."""
    listener = transport.listen()
    with pytest.raises(EndpointError, match="in use") as caught:
        transport.open_listener(transport.endpoint)
    dialler = transport.dial()
    dialler.send(ONLY_PEER, [b"still here"])
    assert caught.value.where == transport.endpoint
    assert take(listener)[1] == [b"still here"]


def test_address_is_free_again_after_close(transport: Transport) -> None:
    """Close gives the address back at once."""
    for _ in range(20):
        transport.listen().close()
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"x"])
    assert take(listener)[1] == [b"x"]


def test_port_serves_two_threads_in_turn(transport: Transport) -> None:
    """A vCPU's thread may wait, receive and send where the loop's thread did before, and the other way round."""
    listener, dialler = transport.listen(), transport.dial()
    dialler.send(ONLY_PEER, [b"hello"])
    peer, _ = take(listener)
    seen: list[list[bytes]] = []

    def trap(number: int) -> None:
        dialler.send(ONLY_PEER, [b"trap %d" % number])
        listener.send(peer, take(listener)[1])
        seen.append(take(dialler)[1])

    for number in range(0, 20, 2):
        thread = threading.Thread(target=trap, args=(number,))
        thread.start()
        thread.join()
        trap(number + 1)
    assert seen == [[b"trap %d" % number] for number in range(20)]


def test_listener_knows_who_speaks_or_says_that_it_does_not(transport: Transport) -> None:
    """Each address has the name of its key; one that never spoke has an empty one, which is nobody's."""
    listener = transport.listen()
    names = []
    for _ in range(2):
        transport.dial().send(ONLY_PEER, [b"x"])
        peer, _ = take(listener)
        names.append(listener.identity(peer))
    assert names == (["alice", "alice"] if transport.known else [None, None])
    assert listener.identity(b"nobody") == ("" if transport.known else None)


def test_acceptor_behind_a_listener_believes_names_that_fit_their_keys(transport: Transport) -> None:
    """A HELLO in another's name gets no session where peers are known."""
    listener, dialler = transport.listen(), transport.dial()
    acceptor = Acceptor(SessionConfig(Role.HYPERVISOR, "hv", 1), lambda hello: None)
    acceptor.authenticate(key_fits(listener, str))
    for name in ("alice", "bob"):
        opener = Opener(SessionConfig(Role.GUEST, name, 1), "hv")
        for output in opener.start(0):
            assert isinstance(output, SendFrames)
            dialler.send(ONLY_PEER, output.frames)
        peer, frames = take(listener)
        acceptor.receive(peer, frames, 0)
    assert acceptor.state("bob") is (None if transport.known else PeerState.OPEN)
    assert acceptor.rejects["wrong-key"] == transport.known
