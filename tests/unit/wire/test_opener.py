"""The connecting end against hand-made answers."""

from __future__ import annotations

import itertools

import pytest

from iovirt_dist.errors import ConfigError, WindowFullError
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
    SessionMessage,
    Welcome,
)
from iovirt_dist.wire.opener import Opener, OpenerState
from iovirt_dist.wire.session import Delivered, Lost, Opened, Rejected, SendFrames, SessionConfig, SessionOutput

MS = 1_000_000
OWN, PEER = 7, 9
CONFIG = SessionConfig(Role.GUEST, "alice", OWN, features=("batch", "trace"), window=8)


def from_peer(body: Message, sequence: int = 0, acknowledged: int = 0, *, epoch: int = PEER, to: int = OWN) -> Frames:
    """A message of the accepting end."""
    return encode(epoch, to, sequence, acknowledged, body)


def welcome(*, epoch: int = PEER, resumed: bool = False, name: str = "hv") -> Frames:
    """A WELCOME with a lease of one second."""
    return from_peer(Welcome(name, epoch, resumed, 32, 1000, ("batch", "other")), epoch=epoch)


def bodies(outputs: list[SessionOutput]) -> list[Message]:
    """The messages that go out."""
    return [decode(output.frames)[0].body for output in outputs if isinstance(output, SendFrames) and output.frames]


def told(outputs: list[SessionOutput]) -> list[SessionOutput]:
    """What the layer above hears."""
    return [output for output in outputs if not isinstance(output, SendFrames)]


def hello(peer_epoch: int = 0) -> Hello:
    """The HELLO that the opener under test says."""
    return Hello(Role.GUEST, "alice", PROTOCOL_VERSION, OWN, peer_epoch, ("batch", "trace"))


@pytest.fixture
def opener() -> Opener:
    """Started at time 0."""
    opener = Opener(CONFIG, "hv")
    opener.start(0)
    return opener


@pytest.fixture
def open_opener(opener: Opener) -> Opener:
    """In session with life `PEER` since time 0."""
    opener.receive(welcome(), 0)
    return opener


def test_start_says_hello() -> None:
    """The first thing out is HELLO, with no peer epoch."""
    assert bodies(Opener(CONFIG, "hv").start(0)) == [hello()]


def test_hello_is_repeated_with_growing_intervals_up_to_two_seconds(opener: Opener) -> None:
    """A peer that is not there yet is asked again and again, ever more slowly."""
    times_ms = [0]
    for _ in range(7):
        deadline_ns = opener.deadline_ns()
        assert deadline_ns is not None
        assert bodies(opener.tick(deadline_ns)) == [hello()]
        times_ms.append(deadline_ns // MS)
    intervals = [later - earlier for earlier, later in itertools.pairwise(times_ms)]
    assert intervals == [200, 400, 800, 1600, 2000, 2000, 2000]


def test_tick_before_the_deadline_does_nothing(opener: Opener) -> None:
    """An early timer is harmless."""
    assert opener.tick(199 * MS) == []


def test_welcome_opens_with_common_features(opener: Opener) -> None:
    """The layer above learns who answered, in which life, and what both can do."""
    assert told(opener.receive(welcome(), 0)) == [Opened(b"", "hv", Role.HYPERVISOR, PEER, False, 32, ("batch",))]
    assert opener.open


def test_sent_message_is_numbered_and_names_both_lives(open_opener: Opener) -> None:
    """The envelope is what the accepting end checks."""
    envelope, payload = decode(open_opener.send(Interrupt(1, 2), (), 0).frames)
    assert (envelope.epoch, envelope.peer_epoch, envelope.sequence, envelope.acknowledged) == (OWN, PEER, 1, 0)
    assert (envelope.body, payload) == (Interrupt(1, 2), [])


def test_next_message_is_delivered_and_acknowledged_by_the_next_sent(open_opener: Opener) -> None:
    """Acknowledgements ride on what is sent anyway."""
    assert open_opener.receive(from_peer(Interrupt(0, 1), 1), 0) == [Delivered(b"", Interrupt(0, 1), [])]
    assert decode(open_opener.send(Interrupt(1, 1), (), 0).frames)[0].acknowledged == 1


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "no-frames"),
        ([b"\xc1"], "not-msgpack"),
        (from_peer(Interrupt(0, 1), 1, epoch=PEER - 1), "wrong-epoch"),
        (from_peer(Interrupt(0, 1), 1, to=OWN - 1), "wrong-epoch"),
        (from_peer(Ping(1), to=OWN + 1), "wrong-epoch"),
        (from_peer(Ping(1), epoch=PEER + 1), "wrong-epoch"),
        (from_peer(Bye("x"), epoch=PEER - 1), "wrong-epoch"),
        (from_peer(Interrupt(0, 1), 0), "bad-sequence"),
        (from_peer(Ping(1), 1), "bad-sequence"),
        (from_peer(Interrupt(0, 1), 1 << 40), "sequence-jump"),
        (from_peer(Interrupt(0, 1), 1, acknowledged=1), "bad-acknowledgement"),
        (from_peer(Pong(1), acknowledged=1), "bad-acknowledgement"),
        (from_peer(hello()), "wrong-direction"),
        (from_peer(Welcome("hv", 5, False, 1, 1000)), "bad-welcome"),
        (welcome(), "stale-welcome"),
        (welcome(epoch=PEER - 1), "stale-welcome"),
        (welcome(epoch=PEER + 1, resumed=True), "bad-welcome"),
    ],
)
def test_wrong_input_is_rejected_and_counted_and_changes_nothing(
    open_opener: Opener, frames: Frames, reason: str
) -> None:
    """Each wrong message has its reason, and the session goes on after it."""
    assert open_opener.receive(frames, 0) == [Rejected(b"", reason)]
    assert open_opener.rejects == {reason: 1}
    assert open_opener.receive(from_peer(Interrupt(0, 1), 1), 0) == [Delivered(b"", Interrupt(0, 1), [])]


@pytest.mark.parametrize("body", [Ping(1), Pong(1), Bye(""), Refuse("no-session")])
def test_message_before_welcome_does_nothing(opener: Opener, body: SessionMessage) -> None:
    """Only WELCOME opens."""
    assert [type(output) for output in opener.receive(from_peer(body), 0)] in ([Rejected], [])
    assert opener.state is OpenerState.CONNECTING


def test_numbered_message_before_welcome_is_not_delivered(opener: Opener) -> None:
    """A message that overtook WELCOME is dropped; its sender repeats it."""
    assert opener.receive(from_peer(Interrupt(0, 1), 1), 0) == [Rejected(b"", "not-open")]


def test_duplicate_is_dropped_and_counted(open_opener: Opener) -> None:
    """The second copy of a message goes no further."""
    open_opener.receive(from_peer(Interrupt(0, 1), 1), 0)
    assert open_opener.receive(from_peer(Interrupt(0, 1), 1), 0) == []
    assert open_opener.stream.duplicates == 1


def test_gap_asks_for_repetition_once(open_opener: Opener) -> None:
    """A message beyond the next one is dropped, and the gap reported once, not per message."""
    first = open_opener.receive(from_peer(Interrupt(0, 2), 2), 0)
    second = open_opener.receive(from_peer(Interrupt(0, 3), 3), 0)
    assert (bodies(first), second) == ([Ping(0)], [])
    assert open_opener.stream.gaps == 2


def test_gap_that_stays_is_reported_again_after_a_while(open_opener: Opener) -> None:
    """The report itself may be lost."""
    open_opener.receive(from_peer(Interrupt(0, 2), 2), 0)
    assert bodies(open_opener.receive(from_peer(Interrupt(0, 3), 3), 50 * MS)) == [Ping(0)]


def test_gap_report_repeats_from_the_first_missing_message(open_opener: Opener) -> None:
    """What the peer has is not sent again."""
    for count in (1, 2, 3):
        open_opener.send(Interrupt(0, count), (), 0)
    repeated = bodies(open_opener.receive(from_peer(Ping(0), acknowledged=1), 0))
    assert repeated[:2] == [Interrupt(0, 2), Interrupt(0, 3)]
    assert open_opener.receive(from_peer(Ping(0), acknowledged=1), 0) == []


def test_unacknowledged_message_is_repeated_by_the_timer(open_opener: Opener) -> None:
    """Loss is noticed even if nothing else happens."""
    open_opener.send(Interrupt(0, 1), (), 0)
    assert open_opener.deadline_ns() == 200 * MS
    assert bodies(open_opener.tick(200 * MS))[0] == Interrupt(0, 1)


def test_acknowledged_message_is_not_repeated(open_opener: Opener) -> None:
    """An acknowledgement frees the message and the window."""
    open_opener.send(Interrupt(0, 1), (), 0)
    open_opener.receive(from_peer(Pong(0), acknowledged=1), MS)
    assert open_opener.stream.unacknowledged() == 0
    assert bodies(open_opener.tick(200 * MS)) == []


def test_received_message_is_acknowledged_after_a_while(open_opener: Opener) -> None:
    """Without traffic the other way, the acknowledgement goes alone after a quarter of the retry time."""
    open_opener.receive(from_peer(Interrupt(0, 1), 1), 0)
    assert open_opener.deadline_ns() == 50 * MS
    outputs = open_opener.tick(50 * MS)
    assert isinstance(outputs[0], SendFrames)
    assert decode(outputs[0].frames)[0].acknowledged == 1


def test_half_a_window_received_is_acknowledged_at_once(open_opener: Opener) -> None:
    """The sender's window never fills because the receiver is silent."""
    outputs = [open_opener.receive(from_peer(Interrupt(0, n), n), 0) for n in range(1, 5)]
    assert [bodies(output) for output in outputs] == [[], [], [], [Pong(0)]]


def test_ping_is_answered_with_its_stamp(open_opener: Opener) -> None:
    """A sign of life for a sign of life."""
    assert bodies(open_opener.receive(from_peer(Ping(77)), 0)) == [Pong(77)]


def test_silence_is_broken_by_ping_after_a_quarter_of_the_lease(open_opener: Opener) -> None:
    """The accepting end's lease counts, not our own."""
    assert open_opener.deadline_ns() == 250 * MS
    assert bodies(open_opener.tick(250 * MS)) == [Ping(250 * MS)]


def test_lease_that_ran_out_is_told_once_and_hello_goes_on(open_opener: Opener) -> None:
    """After the lease, Lost once; HELLO names the life that we were in session with."""
    outputs = open_opener.tick(1000 * MS)
    assert told(outputs) == [Lost(b"", "hv", "silent for 1000 ms")]
    assert bodies(outputs) == [hello(PEER)]
    assert told(open_opener.tick(1200 * MS)) == []


def test_bye_is_a_loss_and_hello_goes_on(open_opener: Opener) -> None:
    """A peer that leaves in order may come back."""
    outputs = open_opener.receive(from_peer(Bye("restart")), 0)
    assert told(outputs) == [Lost(b"", "hv", "bye: restart")]
    assert bodies(outputs) == [hello(PEER)]


def test_no_session_makes_an_open_session_say_hello_at_once(open_opener: Opener) -> None:
    """A restarted peer or a replaced connection is noticed before the lease runs out."""
    assert bodies(open_opener.receive(from_peer(Refuse("no-session"), epoch=PEER + 1), 0)) == [hello(PEER)]
    assert not open_opener.open


def test_resumed_welcome_sends_what_waited(open_opener: Opener) -> None:
    """What was sent while the session was lost goes out when it resumes, after what was unacknowledged."""
    open_opener.send(Interrupt(0, 1), (), 0)
    open_opener.tick(1000 * MS)
    waiting = open_opener.send(Interrupt(0, 2), (), 1100 * MS)
    outputs = open_opener.receive(welcome(resumed=True), 1200 * MS)
    assert waiting == SendFrames(b"", [])
    assert told(outputs) == [Opened(b"", "hv", Role.HYPERVISOR, PEER, True, 32, ("batch",))]
    assert bodies(outputs)[:2] == [Interrupt(0, 1), Interrupt(0, 2)]


def test_welcome_of_a_new_life_drops_what_waited(open_opener: Opener) -> None:
    """A restarted peer holds no state: numbering begins again and the layer above must rebuild."""
    open_opener.send(Interrupt(0, 1), (), 0)
    open_opener.receive(from_peer(Refuse("no-session"), epoch=PEER + 1), 0)
    outputs = open_opener.receive(welcome(epoch=PEER + 1), 0)
    assert told(outputs) == [
        Lost(b"", "hv", "restarted"),
        Opened(b"", "hv", Role.HYPERVISOR, PEER + 1, False, 32, ("batch",)),
    ]
    assert bodies(outputs) == []
    assert decode(open_opener.send(Interrupt(0, 2), (), 0).frames)[0].sequence == 1


def test_late_first_welcome_does_not_resume(open_opener: Opener) -> None:
    """While HELLO waits for a resuming answer, the first WELCOME turning up again opens nothing."""
    open_opener.tick(1000 * MS)
    assert open_opener.receive(welcome(), 1001 * MS) == [Rejected(b"", "stale-welcome")]


def test_window_full_raises_and_acknowledgement_frees_it(open_opener: Opener) -> None:
    """The bound is the configured window."""
    for count in range(8):
        open_opener.send(Interrupt(0, count), (), 0)
    with pytest.raises(WindowFullError, match="8 messages"):
        open_opener.send(Interrupt(0, 8), (), 0)
    open_opener.receive(from_peer(Pong(0), acknowledged=1), 0)
    assert open_opener.send(Interrupt(0, 8), (), 0).frames


@pytest.mark.parametrize("reason", ["version", "unknown-name", "not-authorised"])
def test_refusal_is_told_once_and_asked_again_slowly(opener: Opener, reason: str) -> None:
    """Whoever is not wanted says so once and does not hammer."""
    assert told(opener.receive(from_peer(Refuse(reason)), 0)) == [Rejected(b"", reason)]
    assert opener.deadline_ns() == 5000 * MS
    assert bodies(opener.tick(5000 * MS)) == [hello()]
    assert opener.receive(from_peer(Refuse(reason)), 5001 * MS) == []
    assert opener.rejects == {reason: 2}


def test_refused_opener_opens_when_it_is_welcome_later(opener: Opener) -> None:
    """A configuration that was put right is noticed."""
    opener.receive(from_peer(Refuse("unknown-name")), 0)
    opener.receive(welcome(), 5000 * MS)
    assert opener.state is OpenerState.OPEN


def test_answer_of_another_process_is_refused(opener: Opener) -> None:
    """Whoever answers must have the expected name."""
    assert opener.receive(welcome(name="other"), 0) == [Rejected(b"", "unexpected-name")]
    assert opener.state is OpenerState.REFUSED


def test_fenced_is_final(open_opener: Opener) -> None:
    """A newer life of ours took over: nothing is sent or accepted any more."""
    outputs = open_opener.receive(from_peer(Refuse("fenced", "7 by 8")), 0)
    assert outputs == [Rejected(b"", "fenced"), Lost(b"", "hv", "fenced: 7 by 8")]
    assert open_opener.deadline_ns() is None
    assert open_opener.receive(welcome(resumed=True), 0) == [Rejected(b"", "not-open")]
    assert open_opener.state is OpenerState.FENCED


def test_refusal_of_an_earlier_life_is_not_ours(open_opener: Opener) -> None:
    """A late refusal meant for the process that had our name before changes nothing."""
    assert open_opener.receive(from_peer(Refuse("fenced"), to=OWN - 1), 0) == [Rejected(b"", "wrong-epoch")]
    assert open_opener.open


def test_close_says_bye_and_is_final(open_opener: Opener) -> None:
    """After an orderly end there is no timer and no answer."""
    assert bodies(open_opener.close("done", 0)) == [Bye("done")]
    assert open_opener.close("again", 0) == []
    assert open_opener.deadline_ns() is None
    assert told(open_opener.receive(welcome(), 0)) == [Rejected(b"", "not-open")]


def test_controller_opens_no_sessions() -> None:
    """Controllers are connected to."""
    with pytest.raises(ConfigError, match="opens no sessions"):
        Opener(SessionConfig(Role.CONTROLLER, "disk", 1), "hv")
