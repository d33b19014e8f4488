"""The accepting end against hand-made peers."""

from __future__ import annotations

import pytest

from iovirt_dist.wire import acceptor as module
from iovirt_dist.wire.acceptor import Acceptor, PeerState
from iovirt_dist.wire.codec import Frames, decode, encode
from iovirt_dist.wire.messages import (
    PROTOCOL_VERSION,
    Bye,
    Hello,
    Interrupt,
    Message,
    Ping,
    Pong,
    Refuse,
    Role,
    Welcome,
)
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput

MS = 1_000_000
OWN, ALICE = 1000, 7
CONFIG = SessionConfig(Role.HYPERVISOR, "hv", OWN, features=("batch", "trace"), credits=16, window=8, lease_ms=1000)
WELCOME = Welcome("hv", OWN, False, 16, 1000, ("batch",))
AGAIN = Welcome("hv", OWN, True, 16, 1000, ("batch",))


def allow(hello: Hello) -> str | None:
    """All guests but mallory."""
    return "unknown-name" if hello.name == "mallory" else None


def hello(
    name: str = "alice",
    epoch: int = ALICE,
    peer_epoch: int = 0,
    *,
    role: Role = Role.GUEST,
    version: int = PROTOCOL_VERSION,
    acknowledged: int = 0,
) -> Frames:
    """A HELLO as an opener says it."""
    body = Hello(role, name, version, epoch, peer_epoch, ("batch",))
    return encode(epoch, peer_epoch, 0, acknowledged, body)


def from_peer(body: Message, sequence: int = 0, acknowledged: int = 0, *, epoch: int = ALICE, to: int = OWN) -> Frames:
    """A message of a connecting end."""
    return encode(epoch, to, sequence, acknowledged, body)


def opened(peer: bytes, epoch: int = ALICE, *, resumed: bool = False, name: str = "alice") -> Opened:
    """What the layer above hears of an opening."""
    return Opened(peer, name, Role.GUEST, epoch, resumed, 16, ("batch",))


def sent(outputs: list[SessionOutput]) -> list[tuple[bytes, Message]]:
    """Messages that go out, with their addresses."""
    return [
        (output.peer, decode(output.frames)[0].body)
        for output in outputs
        if isinstance(output, SendFrames) and output.frames
    ]


def told(outputs: list[SessionOutput]) -> list[SessionOutput]:
    """What the layer above hears."""
    return [output for output in outputs if not isinstance(output, SendFrames)]


@pytest.fixture
def acceptor() -> Acceptor:
    """Without any session."""
    return Acceptor(CONFIG, allow)


@pytest.fixture
def served(acceptor: Acceptor) -> Acceptor:
    """Alice is in session at address p since time 0, and has spoken."""
    acceptor.receive(b"p", hello(), 0)
    acceptor.receive(b"p", from_peer(Pong(0)), 0)
    return acceptor


def test_hello_is_welcomed_and_opens(acceptor: Acceptor) -> None:
    """WELCOME goes out before anything that the layer above sends upon Opened."""
    outputs = acceptor.receive(b"p", hello(), 0)
    assert sent(outputs) == [(b"p", WELCOME)]
    assert told(outputs) == [opened(b"p")]
    assert isinstance(outputs[0], SendFrames)


def test_repeated_hello_is_welcomed_again_without_opening_anew(acceptor: Acceptor) -> None:
    """The first WELCOME may have been lost; what was sent since is sent again."""
    acceptor.receive(b"p", hello(), 0)
    acceptor.send(b"p", Interrupt(0, 1), (), 0)
    outputs = acceptor.receive(b"p", hello(), MS)
    assert sent(outputs)[:2] == [(b"p", WELCOME), (b"p", Interrupt(0, 1))]
    assert told(outputs) == []


def test_message_is_delivered_and_answered_at_its_address(served: Acceptor) -> None:
    """Both directions are numbered from 1 and acknowledge each other."""
    assert served.receive(b"p", from_peer(Interrupt(0, 5), 1), 0) == [Delivered(b"p", Interrupt(0, 5), [])]
    envelope, _ = decode(served.send(b"p", Interrupt(1, 1), (), 0).frames)
    assert (envelope.epoch, envelope.peer_epoch, envelope.sequence, envelope.acknowledged) == (OWN, ALICE, 1, 1)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b""], "not-msgpack"),
        (from_peer(Interrupt(0, 1), 1, epoch=ALICE - 1), "wrong-epoch"),
        (from_peer(Interrupt(0, 1), 1, epoch=ALICE + 1), "wrong-epoch"),
        (from_peer(Interrupt(0, 1), 1, to=OWN - 1), "wrong-epoch"),
        (from_peer(Interrupt(0, 1), 1 << 40), "sequence-jump"),
        (from_peer(Interrupt(0, 1), 1, acknowledged=1), "bad-acknowledgement"),
        (from_peer(Interrupt(0, 1), 0), "bad-sequence"),
        (from_peer(Bye(""), 1), "bad-sequence"),
        (from_peer(WELCOME), "wrong-direction"),
        (from_peer(Refuse("fenced")), "wrong-direction"),
        (encode(ALICE, 5, 0, 0, Hello(Role.GUEST, "alice", PROTOCOL_VERSION, ALICE, 0)), "bad-hello"),
        (hello(peer_epoch=5), "stale-hello"),
        (hello(), "stale-hello"),
        (hello(peer_epoch=OWN, acknowledged=1), "bad-acknowledgement"),
    ],
)
def test_wrong_input_is_rejected_and_counted_and_changes_nothing(served: Acceptor, frames: Frames, reason: str) -> None:
    """Each wrong message has its reason, and the session goes on after it."""
    assert served.receive(b"p", frames, 0) == [Rejected(b"p", reason)]
    assert served.rejects == {reason: 1}
    assert served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0) == [Delivered(b"p", Interrupt(0, 1), [])]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (hello("mallory"), "unknown-name"),
        (hello(version=PROTOCOL_VERSION + 1), "version"),
        (hello(role=Role.HYPERVISOR), "wrong-role"),
        (hello(role=Role.CONTROLLER), "wrong-role"),
        (hello(epoch=0), "bad-epoch"),
        (hello(peer_epoch=OWN), "fenced"),
    ],
)
def test_hello_that_gets_no_session_is_refused_with_the_reason(acceptor: Acceptor, frames: Frames, reason: str) -> None:
    """The refusal goes to the sender and names what is wrong."""
    outputs = acceptor.receive(b"p", frames, 0)
    [(peer, body)] = sent(outputs)
    assert isinstance(body, Refuse)
    assert (peer, body.reason) == (b"p", reason)
    assert told(outputs) == [Rejected(b"p", reason)]


def test_message_of_a_stranger_is_refused_but_not_each_of_a_burst(acceptor: Acceptor) -> None:
    """An opener that outlived us learns it at once; a flood gets few answers."""
    answers = [sent(acceptor.receive(b"x", from_peer(Interrupt(0, n), n), 0)) for n in range(1, 4)]
    later = sent(acceptor.receive(b"x", from_peer(Interrupt(0, 4), 4), 50 * MS))
    assert answers == [[(b"x", Refuse("no-session"))], [], []]
    assert later == [(b"x", Refuse("no-session"))]
    assert acceptor.rejects == {"no-session": 4}


def test_refusal_is_addressed_to_the_life_that_is_refused(acceptor: Acceptor) -> None:
    """So that a later life at the same address does not take it for its own."""
    [output] = [o for o in acceptor.receive(b"x", from_peer(Ping(1)), 0) if isinstance(o, SendFrames)]
    assert decode(output.frames)[0].peer_epoch == ALICE


def test_garbage_of_one_peer_leaves_the_others_alone(served: Acceptor) -> None:
    """Reject and go on."""
    for frames in ([b"\xc1"], [], [b"x" * 200_000], [b"\x93"], from_peer(Interrupt(0, 1), 1)):
        served.receive(b"evil", frames, 0)
    assert served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0) == [Delivered(b"p", Interrupt(0, 1), [])]


def test_reconnect_moves_the_session_to_the_new_address_and_repeats(served: Acceptor) -> None:
    """Same name and epoch at another address: the session goes on there, unacknowledged messages too."""
    served.send(b"p", Interrupt(0, 1), (), 0)
    served.send(b"p", Interrupt(0, 2), (), 0)
    outputs = served.receive(b"q", hello(peer_epoch=OWN, acknowledged=1), MS)
    assert sent(outputs)[:2] == [(b"q", AGAIN), (b"q", Interrupt(0, 2))]
    assert told(outputs) == [opened(b"q", resumed=True)]


def test_old_address_after_reconnect_has_no_session(served: Acceptor) -> None:
    """What still comes from the old connection is refused, and sending there does nothing."""
    served.receive(b"q", hello(peer_epoch=OWN), 0)
    assert sent(served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0)) == [(b"p", Refuse("no-session"))]
    assert served.send(b"p", Interrupt(0, 1), (), 0) == SendFrames(b"p", [])
    assert served.rejects == {"no-session": 1, "send-to-nobody": 1}


def test_newer_epoch_replaces_the_session_and_fences_the_old_life(served: Acceptor) -> None:
    """A restarted guest takes over; the old process, if it still runs, is told that it is out."""
    outputs = served.receive(b"q", hello(epoch=ALICE + 1), 0)
    assert told(outputs) == [Lost(b"p", "alice", "epoch 7 was replaced by 8"), opened(b"q", ALICE + 1)]
    assert sent(served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0)) == [
        (b"p", Refuse("fenced", "epoch 7 was replaced by 8"))
    ]


def test_newer_epoch_at_the_same_address_fences_nobody(served: Acceptor) -> None:
    """The address belongs to the new life now; stragglers of the old one are dropped without an answer."""
    served.receive(b"p", hello(epoch=ALICE + 1), 0)
    assert served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0) == [Rejected(b"p", "wrong-epoch")]


def test_older_epoch_is_fenced_with_both_epochs_named(served: Acceptor) -> None:
    """An old process that comes back late does not displace the new one."""
    assert sent(served.receive(b"q", hello(epoch=ALICE - 1), 0)) == [
        (b"q", Refuse("fenced", "epoch 6 of alice, now 7")),
    ]
    assert served.receive(b"p", from_peer(Interrupt(0, 1), 1), 0) == [Delivered(b"p", Interrupt(0, 1), [])]


def test_silent_peer_is_lost_once_and_resumes_with_what_waited(served: Acceptor) -> None:
    """State outlives the lease: messages sent meanwhile go out upon resumption."""
    assert told(served.tick(1000 * MS)) == [Lost(b"p", "alice", "silent for 1000 ms")]
    assert served.deadline_ns() is None
    assert served.send(b"p", Interrupt(0, 1), (), 1100 * MS) == SendFrames(b"p", [])
    outputs = served.receive(b"p", hello(peer_epoch=OWN), 2000 * MS)
    assert told(outputs) == [opened(b"p", resumed=True)]
    assert sent(outputs)[:2] == [(b"p", AGAIN), (b"p", Interrupt(0, 1))]


def test_message_of_a_lost_peer_asks_for_hello(served: Acceptor) -> None:
    """A process that was only stopped for a while learns that it must resume."""
    served.tick(1000 * MS)
    assert sent(served.receive(b"p", from_peer(Interrupt(0, 1), 1), 1100 * MS)) == [(b"p", Refuse("no-session"))]


def test_signs_of_life_keep_the_session(served: Acceptor) -> None:
    """PING is answered and renews the lease."""
    assert sent(served.receive(b"p", from_peer(Ping(5)), 900 * MS)) == [(b"p", Pong(5))]
    assert told(served.tick(1800 * MS)) == []
    assert told(served.tick(1900 * MS)) == [Lost(b"p", "alice", "silent for 1000 ms")]


def test_only_the_silent_one_of_two_peers_is_lost(served: Acceptor) -> None:
    """Leases are each peer's own."""
    served.receive(b"q", hello("bob", 3), 500 * MS)
    assert told(served.tick(1000 * MS)) == [Lost(b"p", "alice", "silent for 1000 ms")]
    assert served.state("bob") is PeerState.OPEN


def test_bye_ends_the_session_for_good(served: Acceptor) -> None:
    """A life that said BYE does not come back; the next one does."""
    assert told(served.receive(b"p", from_peer(Bye("off")), 0)) == [Lost(b"p", "alice", "bye: off")]
    assert sent(served.receive(b"p", hello(peer_epoch=OWN), 0)) == [
        (b"p", Refuse("fenced", "epoch 7 of alice said bye"))
    ]
    assert told(served.receive(b"p", hello(epoch=ALICE + 1), 0)) == [opened(b"p", ALICE + 1)]


def test_address_that_speaks_for_another_name_loses_the_first(served: Acceptor) -> None:
    """One address, one session."""
    outputs = told(served.receive(b"p", hello("bob", 3), 0))
    assert outputs == [Lost(b"p", "alice", "its address now speaks for bob"), opened(b"p", 3, name="bob")]


def test_names_are_bounded(acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a new name is refused, unless one that said BYE gives way."""
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    acceptor.receive(b"a", hello("a"), 0)
    acceptor.receive(b"b", hello("b"), 0)
    refused = told(acceptor.receive(b"c", hello("c"), 0))
    acceptor.receive(b"a", from_peer(Bye("")), 0)
    assert refused == [Rejected(b"c", "full")]
    assert told(acceptor.receive(b"c", hello("c"), 0)) == [opened(b"c", name="c")]


def test_strangers_are_bounded(acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from ever new addresses leaves no trace that grows."""
    monkeypatch.setattr(module, "MAX_STRANGERS", 4)
    for number in range(20):
        acceptor.receive(b"%d" % number, from_peer(Ping(1)), 0)
    assert len(acceptor._answered_ns) == 4


def test_close_says_bye_to_all_and_is_final(served: Acceptor) -> None:
    """After an orderly end nothing opens."""
    served.receive(b"q", hello("bob", 3), 0)
    assert sent(served.close("down", 0)) == [(b"p", Bye("down")), (b"q", Bye("down"))]
    assert served.receive(b"p", hello(), 0) == [Rejected(b"p", "closed")]
    assert served.deadline_ns() is None


def test_deadline_covers_a_message_sent_later(served: Acceptor) -> None:
    """A timer that becomes due earlier than all others is not overslept."""
    served.tick(250 * MS)
    served.receive(b"p", from_peer(Pong(0)), 260 * MS)
    served.send(b"p", Interrupt(0, 1), (), 270 * MS)
    deadline_ns = served.deadline_ns()
    assert deadline_ns is not None
    assert deadline_ns <= 470 * MS
    assert (b"p", Interrupt(0, 1)) in sent(served.tick(470 * MS))


def test_peer_that_opens_and_falls_silent_has_a_deadline(acceptor: Acceptor) -> None:
    """Even if it never says anything but HELLO."""
    acceptor.receive(b"p", hello(), 0)
    assert acceptor.deadline_ns() == 250 * MS


def test_name_that_the_key_does_not_allow_is_refused_and_counted(acceptor: Acceptor) -> None:
    """Who connects with bob's key is not alice, whatever it says."""
    acceptor.authenticate(lambda peer, name: (peer, name) == (b"bob's", "bob"))
    outputs = acceptor.receive(b"bob's", hello("alice"), 0)
    assert sent(outputs) == [(b"bob's", Refuse("wrong-key", "the key is not that of alice"))]
    assert told(outputs) == [Rejected(b"bob's", "wrong-key")]
    assert acceptor.rejects == {"wrong-key": 1}
    assert acceptor.state("alice") is None


def test_later_hello_in_another_name_leaves_both_sessions_as_they_were(served: Acceptor) -> None:
    """An open session gives no right to another's name: the impostor's own session and the victim's go on."""
    served.receive(b"q", hello("bob"), 0)
    served.authenticate(lambda peer, name: {b"p": "alice", b"q": "bob"}[peer] == name)
    outputs = served.receive(b"q", hello("alice", ALICE + 1), 0)
    assert told(outputs) == [Rejected(b"q", "wrong-key")]
    assert (served.state("alice"), served.state("bob")) == (PeerState.OPEN, PeerState.OPEN)
    assert served.receive(b"p", from_peer(Interrupt(0, 5), 1), 0) == [Delivered(b"p", Interrupt(0, 5), [])]


def test_name_that_the_key_allows_is_welcomed(acceptor: Acceptor) -> None:
    """The owner of the key gets its session."""
    acceptor.authenticate(lambda peer, name: (peer, name) == (b"p", "alice"))
    assert told(acceptor.receive(b"p", hello(), 0)) == [opened(b"p")]
