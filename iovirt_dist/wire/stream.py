"""One peer's numbered messages in both directions: the part of a session that both ends share.

A `Stream` lives as long as its pair of epochs. The ends (`wire.opener`, `wire.acceptor`) check who speaks and when the
stream is open; the stream numbers, acknowledges, repeats, and watches for silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from iovirt_dist.errors import WindowFullError
from iovirt_dist.wire.codec import Buffer, Frames, encode
from iovirt_dist.wire.messages import Bye, Envelope, Message, Ping, Pong, Refuse, Welcome
from iovirt_dist.wire.session import (
    MAX_WINDOW,
    MILLISECOND_NS,
    SESSION_TYPES,
    Delivered,
    SendFrames,
    SessionConfig,
    SessionOutput,
)

BURST_MESSAGES = 64
"""Most messages repeated at once; the next burst waits for the acknowledgement of this one."""
BURST_BYTES = 4 << 20
OWED_BYTES = 1 << 20
"""Payload received after which an acknowledgement goes out at once, because the sender holds it until then."""
RETRY_CAP_NS = 2000 * MILLISECOND_NS
NEVER_NS = 1 << 63


class Stream:
    """Numbered messages between this process and one life of a peer.

    Args:
        config: This end's settings.
        peer: Transport address of the peer.
        peer_epoch: The peer's life; 0 while there is none yet.
        lease_ms: Agreed lease.
        now_ns: Monotonic time.

    Attributes:
        peer: Transport address; changes when the peer reconnects.
        holding: Messages are kept but not put on the wire: the session is not open, or older ones must be
            repeated first.
        alarm_ns: Not later than the time at which `tick` must run.
        duplicates: Messages dropped because they had been received before.
        gaps: Messages dropped because an earlier one was missing.
        repeated: Messages sent again.
        bytes_out: Of numbered messages, each counted once, all frames.
    """

    __slots__ = (
        "_ack_due_ns",
        "_ack_wait_ns",
        "_burst_end",
        "_gap_quiet_ns",
        "_gap_reported",
        "_half_window",
        "_kept_bytes",
        "_last_ping_ns",
        "_lease_ns",
        "_owed",
        "_owed_bytes",
        "_ping_ns",
        "_repeat_due_ns",
        "_repeat_ns",
        "_repeated_from",
        "_repeated_ns",
        "_retry_ns",
        "_unacknowledged",
        "_window",
        "acknowledged",
        "alarm_ns",
        "bytes_out",
        "duplicates",
        "epoch",
        "gaps",
        "holding",
        "last_in",
        "last_out",
        "last_received_ns",
        "last_sent_ns",
        "peer",
        "peer_epoch",
        "repeated",
    )

    def __init__(self, config: SessionConfig, peer: bytes, peer_epoch: int, lease_ms: int, now_ns: int) -> None:
        self.epoch = config.epoch
        self.peer = peer
        self.peer_epoch = peer_epoch
        self.holding = True
        self.last_out = 0
        self.acknowledged = 0
        self.last_in = 0
        self.last_sent_ns = self.last_received_ns = now_ns
        self.duplicates = self.gaps = self.repeated = self.bytes_out = 0
        self._unacknowledged: deque[Frames] = deque()
        self._window = config.window
        self._half_window = max(config.window // 2, 1)
        self._lease_ns = lease_ms * MILLISECOND_NS
        ping_ms = min(config.ping_ms or lease_ms, lease_ms // 4)
        self._ping_ns = max(ping_ms, 1) * MILLISECOND_NS
        self._retry_ns = config.retry_ms * MILLISECOND_NS
        self._ack_wait_ns = self._retry_ns // 4
        self._repeat_ns = self._retry_ns
        self._repeat_due_ns = self._ack_due_ns = NEVER_NS
        self._repeated_from = -1
        self._repeated_ns = self._last_ping_ns = self._gap_quiet_ns = now_ns
        self._burst_end = 0
        self._gap_reported = -1
        self._owed = self._owed_bytes = self._kept_bytes = 0
        self.alarm_ns = now_ns + min(self._lease_ns, self._ping_ns)

    def send(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> Frames:
        """Number, keep and encode a message.

        Returns:
            The frames to put on the wire now; none while the stream is holding.

        Raises:
            WindowFullError: The window is full of unacknowledged messages.
        """
        kept = self._unacknowledged
        if not kept:
            due_ns = self._repeat_due_ns = now_ns + self._repeat_ns
            self.alarm_ns = min(self.alarm_ns, due_ns)
        elif len(kept) >= self._window:
            raise WindowFullError(
                f"{self._window} messages are unacknowledged", self.peer.hex(), "send fewer at a time"
            )
        self.last_out = sequence = self.last_out + 1
        frames = encode(self.epoch, self.peer_epoch, sequence, self.last_in, body, payload)
        kept.append(frames)
        if payload:
            size = sum(map(len, frames))
            self._kept_bytes += size
            self.bytes_out += size
        else:
            self.bytes_out += len(frames[0])
        if self.holding:
            return []
        self._owed = self._owed_bytes = 0
        self.last_sent_ns = now_ns
        return frames

    def receive(self, envelope: Envelope, payload: Sequence[Buffer], now_ns: int, out: list[SessionOutput]) -> str:
        """Take a numbered message of this pair of epochs.

        Args:
            envelope: Its epochs have been checked.
            payload: Its payload frames.
            now_ns: Monotonic time.
            out: Gets what comes of it.

        Returns:
            Empty, or the reason why the message is rejected.
        """
        sequence = envelope.sequence
        body = envelope.body
        if type(body) in SESSION_TYPES:
            return "bad-sequence"
        acknowledged = envelope.acknowledged
        if acknowledged > self.acknowledged:
            if acknowledged > self.last_out:
                return "bad-acknowledgement"
            self._release(acknowledged, now_ns, out)
        if sequence != self.last_in + 1:
            return self._out_of_order(sequence, now_ns, out)
        self.last_in = sequence
        self.last_received_ns = now_ns
        out.append(Delivered(self.peer, body, payload, acknowledged))
        if payload:
            self._owed_bytes += sum(map(len, payload))
        self._owed = owed = self._owed + 1
        if owed == 1:
            self._owe(now_ns)
        if owed >= self._half_window or self._owed_bytes >= OWED_BYTES:
            self._acknowledge(now_ns, out)
        return ""

    def control(self, envelope: Envelope, now_ns: int, out: list[SessionOutput]) -> str:
        """Take a PING or PONG of this pair of epochs; arguments and result as in `receive`."""
        if envelope.acknowledged > self.acknowledged:
            if envelope.acknowledged > self.last_out:
                return "bad-acknowledgement"
            self._release(envelope.acknowledged, now_ns, out)
        self.last_received_ns = now_ns
        body = envelope.body
        if type(body) is Ping:
            if body.stamp:
                out.append(self.session_message(Pong(body.stamp), now_ns))
            elif envelope.acknowledged == self.acknowledged:
                self._repeat_unless_just_done(now_ns, out)
        return ""

    def session_message(self, body: Ping | Pong | Bye | Refuse | Welcome, now_ns: int) -> SendFrames:
        """Encode a message outside the sequence; it carries the acknowledgement."""
        self._owed = self._owed_bytes = 0
        self.last_sent_ns = now_ns
        return SendFrames(self.peer, encode(self.epoch, self.peer_epoch, 0, self.last_in, body))

    def resume(self, acknowledged: int, now_ns: int, out: list[SessionOutput]) -> None:
        """Go on: the session is open (again), and the peer has everything up to `acknowledged`, at most `last_out`."""
        self.holding = False
        self.last_received_ns = self.last_sent_ns = self._last_ping_ns = now_ns
        self._repeat_ns = self._retry_ns
        self._burst_end = NEVER_NS
        if acknowledged > self.acknowledged:
            self._release(acknowledged, now_ns, out)
        if self._unacknowledged:
            self._repeat(now_ns, out)
        self._rearm(now_ns)

    def tick(self, now_ns: int, out: list[SessionOutput]) -> bool:
        """Do what is due.

        Returns:
            True if the lease has run out (and nothing else was done).
        """
        if now_ns >= self.last_received_ns + self._lease_ns:
            return True
        if self._owed and now_ns >= self._ack_due_ns:
            self._acknowledge(now_ns, out)
        if self._unacknowledged and now_ns >= self._repeat_due_ns:
            self._repeat(now_ns, out)
            self._repeat_ns = min(2 * self._repeat_ns, max(RETRY_CAP_NS, self._retry_ns))
        if now_ns >= self._ping_due_ns():
            self._last_ping_ns = now_ns
            out.append(self.session_message(Ping(max(now_ns, 1)), now_ns))
        self._rearm(now_ns)
        return False

    def lease_end_ns(self) -> int:
        """When the peer is lost if nothing comes."""
        return self.last_received_ns + self._lease_ns

    def unacknowledged(self) -> int:
        """Messages kept for repetition."""
        return len(self._unacknowledged)

    def unacknowledged_bytes(self) -> int:
        """Bytes of those of them that have payload."""
        return self._kept_bytes

    def _release(self, acknowledged: int, now_ns: int, out: list[SessionOutput]) -> None:
        """Forget what the peer has; go on with the next burst if this one has arrived."""
        kept = self._unacknowledged
        for _ in range(acknowledged - self.acknowledged):
            frames = kept.popleft()
            if len(frames) > 1:
                self._kept_bytes -= sum(map(len, frames))
        self.acknowledged = acknowledged
        self._repeat_ns = self._retry_ns
        self._repeat_due_ns = now_ns + self._retry_ns
        if kept:
            self.alarm_ns = min(self.alarm_ns, self._repeat_due_ns)
        if self.holding and kept and acknowledged >= self._burst_end:
            self._repeat(now_ns, out)

    def _repeat_unless_just_done(self, now_ns: int, out: list[SessionOutput]) -> None:
        """Repeat on the peer's request, but not for every request of one gap."""
        if not self._unacknowledged:
            return
        if self.acknowledged != self._repeated_from or now_ns >= self._repeated_ns + self._ack_wait_ns:
            self._repeat(now_ns, out)

    def _repeat(self, now_ns: int, out: list[SessionOutput]) -> None:
        """Send a burst from the first unacknowledged message on, and a PING that asks what has arrived."""
        sent = size = 0
        for frames in self._unacknowledged:
            size += sum(map(len, frames))
            if sent and (sent == BURST_MESSAGES or size > BURST_BYTES):
                break
            out.append(SendFrames(self.peer, frames))
            sent += 1
        self.repeated += sent
        self._burst_end = self.acknowledged + sent
        self.holding = sent < len(self._unacknowledged)
        self._repeated_from = self.acknowledged
        self._repeated_ns = now_ns
        self._repeat_due_ns = now_ns + self._repeat_ns
        self.alarm_ns = min(self.alarm_ns, self._repeat_due_ns)
        out.append(self.session_message(Ping(max(now_ns, 1)), now_ns))

    def _out_of_order(self, sequence: int, now_ns: int, out: list[SessionOutput]) -> str:
        """Drop a message that is not the next; acknowledge again, or report the gap once per gap and interval."""
        if sequence > self.last_in + MAX_WINDOW:
            return "sequence-jump"
        self.last_received_ns = now_ns
        if sequence <= self.last_in:
            self.duplicates += 1
            self._owed += 1
            if self._owed == 1:
                self._owe(now_ns)
            return ""
        self.gaps += 1
        if self._gap_reported != self.last_in or now_ns >= self._gap_quiet_ns:
            self._gap_reported = self.last_in
            self._gap_quiet_ns = now_ns + self._ack_wait_ns
            out.append(self.session_message(Ping(0), now_ns))
        return ""

    def _owe(self, now_ns: int) -> None:
        """Start the time within which an acknowledgement must go out."""
        self._ack_due_ns = due_ns = now_ns + self._ack_wait_ns
        self.alarm_ns = min(self.alarm_ns, due_ns)

    def _acknowledge(self, now_ns: int, out: list[SessionOutput]) -> None:
        out.append(self.session_message(Pong(0), now_ns))

    def _ping_due_ns(self) -> int:
        """A sign of life is due after silence of ours, and after silence of the peer's."""
        return min(self.last_sent_ns, max(self.last_received_ns, self._last_ping_ns)) + self._ping_ns

    def _rearm(self, now_ns: int) -> None:
        """Set the alarm anew; between two ticks it is only ever moved forward."""
        due_ns = min(self.lease_end_ns(), self._ping_due_ns())
        if self._owed:
            due_ns = min(due_ns, self._ack_due_ns)
        if self._unacknowledged:
            due_ns = min(due_ns, self._repeat_due_ns)
        self.alarm_ns = max(due_ns, now_ns)
