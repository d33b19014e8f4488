"""Two streams joined without a network."""

from __future__ import annotations

from iovirt_dist.wire.codec import decode, encode
from iovirt_dist.wire.messages import Complete, Interrupt, Ping, Pong, Role
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig, SessionOutput
from iovirt_dist.wire.stream import BURST_MESSAGES, Stream

MS = 1_000_000


def stream(epoch: int, peer_epoch: int, *, window: int = 4096, resumed: bool = True) -> Stream:
    """An open stream with a lease of one second."""
    made = Stream(SessionConfig(Role.GUEST, "alice", epoch, window=window), b"", peer_epoch, 1000, 0)
    if resumed:
        made.resume(0, 0, [])
    return made


def exchange(outputs: list[SessionOutput], to: Stream, now_ns: int) -> list[SessionOutput]:
    """Hand frames to the other stream, and return what comes of it."""
    out: list[SessionOutput] = []
    for output in outputs:
        assert isinstance(output, SendFrames)
        envelope, payload = decode(output.frames)
        reason = to.receive(envelope, payload, now_ns, out) if envelope.sequence else to.control(envelope, now_ns, out)
        assert reason == ""
    return out


def test_many_kept_messages_are_repeated_in_bursts_clocked_by_acknowledgements() -> None:
    """A long queue does not flood the pipe: each burst waits for the last one's arrival."""
    sender, receiver = stream(1, 2, resumed=False), stream(2, 1)
    for count in range(3 * BURST_MESSAGES):
        sender.send(Interrupt(0, count), (), 0)
    bursts: list[int] = []
    counts: list[int] = []
    out: list[SessionOutput] = []
    sender.resume(0, 0, out)
    while out:
        bursts.append(len(out))
        answers = exchange(out, receiver, 0)
        counts += [o.body.count for o in answers if isinstance(o, Delivered) and isinstance(o.body, Interrupt)]
        out = exchange([o for o in answers if isinstance(o, SendFrames)], sender, 0)
    assert bursts == [BURST_MESSAGES + 1] * 3
    assert counts == list(range(3 * BURST_MESSAGES))
    assert sender.unacknowledged() == 0


def test_message_sent_while_older_ones_are_repeated_waits_for_its_turn() -> None:
    """It would only be dropped as out of order."""
    sender = stream(1, 2, resumed=False)
    for count in range(BURST_MESSAGES + 1):
        sender.send(Interrupt(0, count), (), 0)
    sender.resume(0, 0, [])
    assert sender.send(Interrupt(0, 99), (), 0) == []


def test_repetition_by_timer_backs_off_to_two_seconds() -> None:
    """A peer that does not answer is not flooded."""
    sender = Stream(SessionConfig(Role.GUEST, "alice", 1), b"", 2, 60_000, 0)
    sender.resume(0, 0, [])
    sender.send(Interrupt(0, 1), (), 0)
    times_ms: list[int] = []
    now_ns = 0
    while len(times_ms) < 6:
        now_ns = sender.alarm_ns
        out: list[SessionOutput] = []
        sender.tick(now_ns, out)
        times_ms += [now_ns // MS] if len(out) > 1 else []
    assert times_ms == [200, 400, 800, 1600, 3200, 5200]


def test_acknowledgement_after_backing_off_brings_the_next_repetition_forward() -> None:
    """The peer is there again, so what it still lacks is not left for the interval that silence had made long."""
    sender = Stream(SessionConfig(Role.GUEST, "alice", 1), b"", 2, 60_000, 0)
    sender.resume(0, 0, [])
    for count in (1, 2):
        sender.send(Interrupt(0, count), (), 0)
    while sender.alarm_ns <= 3200 * MS:
        sender.tick(sender.alarm_ns, [])

    envelope, _ = decode(encode(2, 1, 0, 1, Pong(0)))
    assert sender.control(envelope, 3300 * MS, []) == ""

    assert sender.unacknowledged() == 1
    assert sender.alarm_ns <= 3500 * MS


def test_large_payload_is_acknowledged_at_once() -> None:
    """The sender holds it in memory until then."""
    receiver = stream(2, 1)
    sender = stream(1, 2)
    frames = sender.send(Complete(1, b"x"), [bytes(1 << 20)], 0)
    answers = exchange([SendFrames(b"", frames)], receiver, 0)
    assert isinstance(answers[1], SendFrames)
    assert decode(answers[1].frames)[0].body == Pong(0)
    exchange([answers[1]], sender, 0)
    assert sender.unacknowledged() == 0


def test_lost_acknowledgement_is_made_good() -> None:
    """A duplicate shows that the sender has not heard of us: it is told again."""
    sender, receiver = stream(1, 2), stream(2, 1)
    frames = sender.send(Interrupt(0, 1), (), 0)
    exchange([SendFrames(b"", frames)], receiver, 0)
    receiver.tick(50 * MS, [])
    exchange([SendFrames(b"", frames)], receiver, 200 * MS)
    out: list[SessionOutput] = []
    receiver.tick(250 * MS, out)
    exchange(out, sender, 250 * MS)
    assert sender.unacknowledged() == 0


def test_ping_with_stamp_zero_gets_no_pong() -> None:
    """It reports a gap; with nothing to repeat there is nothing to say."""
    one, other = stream(1, 2), stream(2, 1)
    assert exchange([one.session_message(Ping(0), 0)], other, 0) == []
