"""What a status file tells of a session."""

from __future__ import annotations

from iovirt_dist.runtime.session_status import session_status
from iovirt_dist.wire.codec import decode
from iovirt_dist.wire.messages import GuestState, Report, Role
from iovirt_dist.wire.session import SessionConfig, SessionOutput
from iovirt_dist.wire.stream import Stream

REPORT = Report(GuestState.RUNNING, "", (0,) * 8, 0, 0, 0, 0)


def stream(epoch: int, peer_epoch: int) -> Stream:
    """One end, open."""
    made = Stream(SessionConfig(Role.GUEST, "alice", epoch), b"", peer_epoch, 1000, 0)
    made.resume(0, 0, [])
    return made


def test_no_session_is_all_zero() -> None:
    """So that a reader finds the same keys always."""
    assert set(session_status(None).values()) == {0}
    assert session_status(None).keys() == session_status(stream(1, 2)).keys()


def test_session_tells_what_was_dropped_and_repeated() -> None:
    """The second message comes before the first, and then twice again."""
    ours, theirs = stream(1, 2), stream(2, 1)
    out: list[SessionOutput] = []
    envelopes = [decode(ours.send(REPORT, (), 0))[0] for _ in range(2)]
    for at in (1, 0, 0, 0):
        theirs.receive(envelopes[at], (), 0, out)
    ours.tick(900_000_000, out)

    sent, received = session_status(ours), session_status(theirs)

    assert (sent["messages_out"], sent["unacknowledged"], sent["repeated"]) == (2, 2, 2)
    assert (received["messages_in"], received["gaps"], received["duplicates"]) == (1, 1, 2)
