"""The end of a session that connects: a guest to its hypervisor, a hypervisor to a controller."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence

from iovirt_dist.errors import ConfigError, DecodeError
from iovirt_dist.wire.codec import Buffer, decode, encode
from iovirt_dist.wire.messages import (
    PROTOCOL_VERSION,
    Bye,
    Envelope,
    Hello,
    Message,
    Ping,
    Pong,
    Refuse,
    Welcome,
)
from iovirt_dist.wire.session import (
    COUNTERPART,
    MILLISECOND_NS,
    Lost,
    Opened,
    Rejected,
    SendFrames,
    SessionConfig,
    SessionOutput,
)
from iovirt_dist.wire.stream import NEVER_NS, Stream


class OpenerState(enum.Enum):
    """Where the connecting end stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    """HELLO is repeated; the layer above has not been told of a loss."""
    OPEN = "open"
    LOST = "lost"
    """As CONNECTING, but the layer above knows."""
    REFUSED = "refused"
    """The peer does not want us; asked again slowly, because its configuration may change."""
    FENCED = "fenced"
    """A newer life of ours took over; final."""
    CLOSED = "closed"


class _Event(enum.Enum):
    STARTED = 1
    WELCOMED = 2
    TURNED_AWAY = 3
    """The peer knows no session of ours: it restarted, or the connection was replaced."""
    SILENT = 4
    """The lease ran out, or the peer said BYE."""
    REFUSED = 5
    FENCED = 6
    CLOSED = 7


_S = OpenerState
_LIVE = (_S.CONNECTING, _S.OPEN, _S.LOST, _S.REFUSED)
# An event without an entry does nothing in that state: final states stay, late answers are ignored.
_NEXT: dict[tuple[OpenerState, _Event], OpenerState] = {
    (_S.IDLE, _Event.STARTED): _S.CONNECTING,
    **{(state, _Event.WELCOMED): _S.OPEN for state in _LIVE},
    (_S.OPEN, _Event.TURNED_AWAY): _S.CONNECTING,
    (_S.OPEN, _Event.SILENT): _S.LOST,
    (_S.CONNECTING, _Event.SILENT): _S.LOST,
    **{(state, _Event.REFUSED): _S.REFUSED for state in _LIVE},
    **{(state, _Event.FENCED): _S.FENCED for state in _LIVE},
    **{(state, _Event.CLOSED): _S.CLOSED for state in OpenerState},
}
_HELLO_CAP_NS = 2000 * MILLISECOND_NS
_REFUSED_RETRY_NS = 5000 * MILLISECOND_NS
_PEER = b""
"""A connecting socket has one peer."""


class Opener:
    """Connecting end of one session; a sans-IO core.

    Args:
        config: This end's settings; its lease and credits are replaced by the peer's.
        expect_name: Who must answer.

    Attributes:
        rejects: Messages refused, by reason.

    Raises:
        ConfigError: The role opens no sessions.
    """

    def __init__(self, config: SessionConfig, expect_name: str) -> None:
        if config.role not in COUNTERPART:
            raise ConfigError(f"a {config.role.name.lower()} opens no sessions", config.name, "use an acceptor")
        self.rejects: Counter[str] = Counter()
        self._config = config
        self._expect_name = expect_name
        self._state = OpenerState.IDLE
        self._stream = Stream(config, _PEER, 0, config.lease_ms, 0)
        self._told_lost = True
        self._hello_due_ns = NEVER_NS
        self._hello_ns = config.retry_ms * MILLISECOND_NS
        self._refused_for = ""

    @property
    def open(self) -> bool:
        """Whether messages go out now."""
        return self._state is OpenerState.OPEN

    @property
    def state(self) -> OpenerState:
        """Where this end stands."""
        return self._state

    @property
    def stream(self) -> Stream:
        """Counters of the present session."""
        return self._stream

    def start(self, now_ns: int) -> list[SessionOutput]:
        """Say the first HELLO."""
        out: list[SessionOutput] = []
        if self._move(_Event.STARTED):
            self._hello(now_ns, out)
        return out

    def send(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> SendFrames:
        """Send a message, or keep it while the session is not open.

        Args:
            body: A message of the guest or controller protocol.
            payload: Raw frames; they must not change until they are acknowledged.
            now_ns: Monotonic time.

        Returns:
            What to put on the wire; no frames if the message waits.

        Raises:
            WindowFullError: The window is full.
        """
        return SendFrames(_PEER, self._stream.send(body, payload, now_ns))

    def receive(self, frames: Sequence[Buffer], now_ns: int) -> list[SessionOutput]:
        """Take the frames of one message, whatever they are."""
        try:
            envelope, payload = decode(frames)
        except DecodeError as error:
            return [self._reject(error.reason)]
        out: list[SessionOutput] = []
        stream = self._stream
        if (
            envelope.sequence
            and self._state is OpenerState.OPEN
            and envelope.epoch == stream.peer_epoch
            and envelope.peer_epoch == stream.epoch
        ):
            reason = stream.receive(envelope, payload, now_ns, out)
        else:
            reason = self._session_message(envelope, now_ns, out)
        if reason:
            out.append(self._reject(reason))
        return out

    def tick(self, now_ns: int) -> list[SessionOutput]:
        """Do what is due at `now_ns`."""
        out: list[SessionOutput] = []
        if now_ns < (self.deadline_ns() or 0):
            return out
        if self._state is OpenerState.OPEN:
            if self._stream.tick(now_ns, out):
                self._lose(f"silent for {self._lease_text(now_ns)}", now_ns, out)
            return out
        if self._state is OpenerState.CONNECTING and not self._told_lost and now_ns >= self._stream.lease_end_ns():
            self._lose(f"silent for {self._lease_text(now_ns)}", now_ns, out)
        elif now_ns >= self._hello_due_ns:
            self._hello(now_ns, out)
        return out

    def deadline_ns(self) -> int | None:
        """When `tick` must run at the latest; None for never."""
        if self._state is OpenerState.OPEN:
            return self._stream.alarm_ns
        if self._state is OpenerState.CONNECTING and not self._told_lost:
            return min(self._hello_due_ns, self._stream.lease_end_ns())
        return self._hello_due_ns if self._hello_due_ns != NEVER_NS else None

    def close(self, reason: str, now_ns: int) -> list[SessionOutput]:
        """End the session in order; final. What is unacknowledged is forgotten."""
        out: list[SessionOutput] = []
        was_open = self.open
        if self._move(_Event.CLOSED) and was_open:
            out.append(self._stream.session_message(Bye(reason[:256]), now_ns))
        self._hello_due_ns = NEVER_NS
        self._stream = Stream(self._config, _PEER, 0, self._config.lease_ms, now_ns)
        return out

    def _session_message(self, envelope: Envelope, now_ns: int, out: list[SessionOutput]) -> str:
        """Take anything but a numbered message of the open session; returns why it is rejected, or nothing."""
        body = envelope.body
        if envelope.peer_epoch != self._config.epoch:
            return "wrong-epoch"
        if envelope.sequence:
            return "not-open" if self._state is not OpenerState.OPEN else "wrong-epoch"
        match body:
            case Welcome():
                return self._welcomed(envelope, body, now_ns, out)
            case Refuse():
                return self._refused(body, now_ns, out)
            case Ping() | Pong() | Bye():
                if self._state is not OpenerState.OPEN:
                    return "not-open"
                if envelope.epoch != self._stream.peer_epoch:
                    return "wrong-epoch"
                if isinstance(body, Bye):
                    self._lose(f"bye: {body.reason}", now_ns, out)
                    return ""
                return self._stream.control(envelope, now_ns, out)
            case Hello():
                return "wrong-direction"
            case _:
                return "bad-sequence"

    def _welcomed(self, envelope: Envelope, welcome: Welcome, now_ns: int, out: list[SessionOutput]) -> str:
        """Open or resume, unless the WELCOME is late or from somebody else."""
        if self._state not in _LIVE:
            return "not-open"
        if welcome.name != self._expect_name:
            self._turn_down("unexpected-name", now_ns, out)
            return ""
        stream = self._stream
        if envelope.epoch != welcome.epoch or not welcome.epoch:
            return "bad-welcome"
        if welcome.epoch < stream.peer_epoch:
            return "stale-welcome"
        if welcome.epoch == stream.peer_epoch:
            if self.open or not welcome.resumed:
                return "stale-welcome"
            if envelope.acknowledged > stream.last_out:
                return "bad-acknowledgement"
        elif welcome.resumed:
            return "bad-welcome"
        if not welcome.resumed:
            self._tell_lost("restarted", out)
            self._stream = stream = Stream(self._config, _PEER, welcome.epoch, welcome.lease_ms, now_ns)
        self._move(_Event.WELCOMED)
        self._told_lost = False
        self._refused_for = ""
        self._hello_due_ns = NEVER_NS
        self._hello_ns = self._config.retry_ms * MILLISECOND_NS
        features = tuple(name for name in welcome.features if name in self._config.features)
        role = COUNTERPART[self._config.role]
        out.append(Opened(_PEER, welcome.name, role, welcome.epoch, welcome.resumed, welcome.credits, features))
        stream.resume(envelope.acknowledged if welcome.resumed else 0, now_ns, out)
        return ""

    def _refused(self, refuse: Refuse, now_ns: int, out: list[SessionOutput]) -> str:
        """A HELLO or a message of ours was not accepted."""
        if self._state not in _LIVE:
            return "not-open"
        if refuse.reason == "no-session":
            if self._move(_Event.TURNED_AWAY):
                self._stream.holding = True
                self._hello(now_ns, out)
            return ""
        if refuse.reason == "fenced":
            self._move(_Event.FENCED)
            self._stream.holding = True
            self._hello_due_ns = NEVER_NS
            out.append(self._reject("fenced"))
            self._tell_lost(f"fenced: {refuse.detail}", out)
            return ""
        self._turn_down(refuse.reason, now_ns, out)
        return ""

    def _turn_down(self, reason: str, now_ns: int, out: list[SessionOutput]) -> None:
        """Not wanted, or not whom we want: say so once per reason and ask again slowly."""
        self._move(_Event.REFUSED)
        self._stream.holding = True
        self._hello_due_ns = now_ns + _REFUSED_RETRY_NS
        self.rejects[reason] += 1
        if reason != self._refused_for:
            self._refused_for = reason
            out.append(Rejected(_PEER, reason))
        self._tell_lost(f"refused: {reason}", out)

    def _lose(self, reason: str, now_ns: int, out: list[SessionOutput]) -> None:
        """The peer is silent or left: tell it once and go on asking."""
        self._move(_Event.SILENT)
        self._stream.holding = True
        self._tell_lost(reason, out)
        self._hello_ns = self._config.retry_ms * MILLISECOND_NS
        self._hello(now_ns, out)

    def _tell_lost(self, reason: str, out: list[SessionOutput]) -> None:
        if not self._told_lost:
            self._told_lost = True
            out.append(Lost(_PEER, self._expect_name, reason))

    def _hello(self, now_ns: int, out: list[SessionOutput]) -> None:
        """Say HELLO, and when to say it again: intervals double up to two seconds."""
        config = self._config
        stream = self._stream
        hello = Hello(config.role, config.name, PROTOCOL_VERSION, config.epoch, stream.peer_epoch, config.features)
        out.append(SendFrames(_PEER, encode(config.epoch, stream.peer_epoch, 0, stream.last_in, hello)))
        if self._state is OpenerState.REFUSED:
            self._hello_due_ns = now_ns + _REFUSED_RETRY_NS
            return
        self._hello_due_ns = now_ns + self._hello_ns
        self._hello_ns = min(2 * self._hello_ns, max(_HELLO_CAP_NS, config.retry_ms * MILLISECOND_NS))

    def _move(self, event: _Event) -> bool:
        """Take the transition, if the table has one."""
        state = _NEXT.get((self._state, event))
        if state is None:
            return False
        self._state = state
        return True

    def _reject(self, reason: str) -> Rejected:
        self.rejects[reason] += 1
        return Rejected(_PEER, reason)

    def _lease_text(self, now_ns: int) -> str:
        return f"{(now_ns - self._stream.last_received_ns) // MILLISECOND_NS} ms"
