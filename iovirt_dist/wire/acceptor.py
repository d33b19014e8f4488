"""The end of sessions that is connected to: a hypervisor by its guests, a controller by hypervisors.

Sessions are keyed by the peer's name. The transport's address of a peer is only where to send now: it changes when the
peer reconnects, and the session moves with it.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Sequence

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.codec import Buffer, decode, encode
from iovirt_dist.wire.messages import PROTOCOL_VERSION, Bye, Envelope, Hello, Message, Ping, Pong, Refuse, Welcome
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

MAX_NAMES = 4096
"""Most names whose sessions are remembered; a further name is refused as ``full``."""
MAX_STRANGERS = 1024
"""Most addresses remembered in order to answer each of them seldom, or with ``fenced``."""


class PeerState(enum.Enum):
    """Where the session of one name stands."""

    OPEN = "open"
    LOST = "lost"
    """The lease ran out; state is kept, HELLO resumes it."""
    CLOSED = "closed"
    """The peer said BYE; only its epoch is remembered."""


class _Peer:
    """One name's session.

    Attributes:
        confirmed: The peer has spoken within the session, so it knows our epoch.
    """

    __slots__ = ("confirmed", "features", "name", "role", "state", "stream")

    def __init__(self, hello: Hello, stream: Stream, features: tuple[str, ...]) -> None:
        self.name = hello.name
        self.role = hello.role
        self.stream = stream
        self.features = features
        self.state = PeerState.OPEN
        self.confirmed = False


class Acceptor:
    """Accepting end of all sessions of a process; a sans-IO core.

    Args:
        config: This end's settings.
        allow: Gives None if the sender of a HELLO may have a session, else a reason of the form of a name
            (``unknown-name``, ``not-authorised``).

    Attributes:
        rejects: Messages refused, by reason, over all peers.
    """

    def __init__(self, config: SessionConfig, allow: Callable[[Hello], str | None]) -> None:
        self.rejects: Counter[str] = Counter()
        self._config = config
        self._allow = allow
        self._key_fits: Callable[[bytes, str], bool] = _anybody
        self._by_name: dict[str, _Peer] = {}
        self._by_address: dict[bytes, _Peer] = {}
        self._fenced: dict[bytes, int] = {}
        self._answered_ns: dict[bytes, int] = {}
        self._alarm_ns = NEVER_NS
        self._closed = False

    def authenticate(self, key_fits: Callable[[bytes, str], bool]) -> None:
        """Believe a HELLO only from whoever may bear its name.

        Args:
            key_fits: Whether what the peer at an address has proved to its transport allows it to bear a name.
        """
        self._key_fits = key_fits

    def receive(self, peer: bytes, frames: Sequence[Buffer], now_ns: int) -> list[SessionOutput]:
        """Take the frames of one message from the transport address `peer`, whatever they are."""
        try:
            envelope, payload = decode(frames)
        except DecodeError as error:
            return [self._reject(peer, error.reason)]
        out: list[SessionOutput] = []
        known = self._by_address.get(peer)
        if known is not None and known.state is PeerState.OPEN and type(envelope.body) is not Hello:
            stream = known.stream
            if envelope.epoch != stream.peer_epoch or envelope.peer_epoch != stream.epoch:
                reason = "wrong-epoch"
            elif envelope.sequence:
                known.confirmed = True
                reason = stream.receive(envelope, payload, now_ns, out)
            else:
                known.confirmed = True
                reason = self._control(known, envelope, now_ns, out)
            self._alarm_ns = min(self._alarm_ns, stream.alarm_ns)
        else:
            reason = self._outside(peer, envelope, now_ns, out)
        if reason:
            out.append(self._reject(peer, reason))
        return out

    def send(self, peer: bytes, body: Message, payload: Sequence[Buffer], now_ns: int) -> SendFrames:
        """Send a message to the session at address `peer`, or keep it while that session is lost.

        Args:
            peer: As in `Opened`.
            body: A message of the guest or controller protocol.
            payload: Raw frames; they must not change until they are acknowledged.
            now_ns: Monotonic time.

        Returns:
            What to put on the wire; no frames if the message waits, or if there is no session at that address
            (counted as ``send-to-nobody``: `Lost` for it has been or is being delivered).

        Raises:
            WindowFullError: The window is full.
        """
        known = self._by_address.get(peer)
        if known is None:
            self.rejects["send-to-nobody"] += 1
            return SendFrames(peer, [])
        stream = known.stream
        frames = stream.send(body, payload, now_ns)
        if stream.alarm_ns < self._alarm_ns and known.state is PeerState.OPEN:
            self._alarm_ns = stream.alarm_ns
        return SendFrames(peer, frames)

    def tick(self, now_ns: int) -> list[SessionOutput]:
        """Do what is due at `now_ns`."""
        out: list[SessionOutput] = []
        if now_ns < self._alarm_ns:
            return out
        alarm_ns = NEVER_NS
        for known in self._by_name.values():
            if known.state is not PeerState.OPEN:
                continue
            stream = known.stream
            if now_ns >= stream.alarm_ns and stream.tick(now_ns, out):
                silence_ms = (now_ns - stream.last_received_ns) // MILLISECOND_NS
                self._lose(known, f"silent for {silence_ms} ms", out)
            else:
                alarm_ns = min(alarm_ns, stream.alarm_ns)
        self._alarm_ns = alarm_ns
        return out

    def deadline_ns(self) -> int | None:
        """When `tick` must run at the latest; None for never."""
        return self._alarm_ns if self._alarm_ns != NEVER_NS else None

    def close(self, reason: str, now_ns: int) -> list[SessionOutput]:
        """Say BYE to every open session; final."""
        out: list[SessionOutput] = [
            known.stream.session_message(Bye(reason[:256]), now_ns)
            for known in self._by_name.values()
            if known.state is PeerState.OPEN
        ]
        self._by_name.clear()
        self._by_address.clear()
        self._alarm_ns = NEVER_NS
        self._closed = True
        return out

    def state(self, name: str) -> PeerState | None:
        """Where the session of `name` stands; None if it never had one."""
        known = self._by_name.get(name)
        return known.state if known else None

    def stream(self, name: str) -> Stream | None:
        """Counters of the session of `name`."""
        known = self._by_name.get(name)
        return known.stream if known else None

    def _control(self, known: _Peer, envelope: Envelope, now_ns: int, out: list[SessionOutput]) -> str:
        """Take a session message of an open session."""
        match envelope.body:
            case Ping() | Pong():
                return known.stream.control(envelope, now_ns, out)
            case Bye(reason=reason):
                self._lose(known, f"bye: {reason}", out)
                self._forget(known, now_ns)
                return ""
            case Welcome() | Refuse():
                return "wrong-direction"
            case _:
                return "bad-sequence"

    def _outside(self, peer: bytes, envelope: Envelope, now_ns: int, out: list[SessionOutput]) -> str:
        """Take a HELLO, or anything from an address without an open session."""
        if self._closed:
            return "closed"
        body = envelope.body
        if isinstance(body, Hello):
            return self._hello(peer, envelope, body, now_ns, out)
        fencing = self._fenced.get(peer)
        if fencing is not None:
            detail = f"epoch {envelope.epoch} was replaced by {fencing}"
            return self._answer(peer, envelope.epoch, Refuse("fenced", detail), now_ns, out)
        if isinstance(body, Welcome | Refuse | Bye):
            return "no-session"
        return self._answer(peer, envelope.epoch, Refuse("no-session"), now_ns, out)

    def _answer(self, peer: bytes, epoch: int, refuse: Refuse, now_ns: int, out: list[SessionOutput]) -> str:
        """Refuse a message outside any session, but not each of a burst."""
        last_ns = self._answered_ns.get(peer)
        if last_ns is None or now_ns >= last_ns + self._config.retry_ms * MILLISECOND_NS // 4:
            _remember(self._answered_ns, peer, now_ns)
            out.append(self._refusal(peer, epoch, refuse))
        return refuse.reason

    def _hello(self, peer: bytes, envelope: Envelope, hello: Hello, now_ns: int, out: list[SessionOutput]) -> str:
        """Open, resume or move a session, or refuse it."""
        if (envelope.epoch, envelope.peer_epoch, envelope.sequence) != (hello.epoch, hello.peer_epoch, 0):
            return "bad-hello"
        known = self._by_name.get(hello.name)
        refuse = self._judge(peer, hello, known)
        if refuse is not None:
            out.append(self._refusal(peer, hello.epoch, refuse))
            return refuse.reason
        if known is None or hello.epoch > known.stream.peer_epoch:
            self._open(peer, hello, known, now_ns, out)
            return ""
        resumed = hello.peer_epoch == self._config.epoch
        if not resumed and known.confirmed:
            return "stale-hello"
        if resumed and envelope.acknowledged > known.stream.last_out:
            return "bad-acknowledgement"
        self._resume(peer, known, envelope.acknowledged if resumed else None, now_ns, out)
        return ""

    def _judge(self, peer: bytes, hello: Hello, known: _Peer | None) -> Refuse | None:
        """Whether this HELLO gets no session, and why."""
        own = self._config
        if hello.version != PROTOCOL_VERSION:
            return Refuse("version", f"{own.name} speaks version {PROTOCOL_VERSION}, {hello.name} {hello.version}")
        if COUNTERPART.get(hello.role) is not own.role:
            return Refuse("wrong-role", f"{own.name} is a {own.role.name.lower()}")
        if not self._key_fits(peer, hello.name):
            return Refuse("wrong-key", f"the key is not that of {hello.name}")
        reason = self._allow(hello)
        if reason is not None:
            return Refuse(reason, f"{own.name} does not serve {hello.name}")
        if not hello.epoch:
            return Refuse("bad-epoch", "epochs start at 1")
        if known is None:
            if hello.peer_epoch == own.epoch:
                return Refuse("fenced", f"epoch {hello.epoch} of {hello.name} is forgotten")
            return Refuse("full", f"{own.name} remembers {MAX_NAMES} names") if self._is_full() else None
        if hello.epoch < known.stream.peer_epoch:
            return Refuse("fenced", f"epoch {hello.epoch} of {hello.name}, now {known.stream.peer_epoch}")
        if hello.epoch == known.stream.peer_epoch and known.state is PeerState.CLOSED:
            return Refuse("fenced", f"epoch {hello.epoch} of {hello.name} said bye")
        return None

    def _open(self, peer: bytes, hello: Hello, old: _Peer | None, now_ns: int, out: list[SessionOutput]) -> None:
        """Begin the session of a new life."""
        if old is not None:
            self._lose(old, f"epoch {old.stream.peer_epoch} was replaced by {hello.epoch}", out)
            self._leave(old, hello.epoch if old.stream.peer != peer else 0)
        own = self._config
        features = tuple(name for name in own.features if name in hello.features)
        known = _Peer(hello, Stream(own, peer, hello.epoch, own.lease_ms, now_ns), features)
        self._make_room()
        self._by_name[hello.name] = known
        self._bind(peer, known, out)
        self._greet(known, resumed=False, out=out, now_ns=now_ns)
        out.append(self._opened(known, resumed=False))
        self._go_on(known, 0, now_ns, out)

    def _resume(
        self, peer: bytes, known: _Peer, acknowledged: int | None, now_ns: int, out: list[SessionOutput]
    ) -> None:
        """Go on with a session, perhaps at another address.

        Args:
            peer: Where the peer is now.
            known: Its session.
            acknowledged: What the peer has; None if it does not know yet that the session is open.
            now_ns: Monotonic time.
            out: Gets what comes of it.
        """
        reopened = known.stream.peer != peer or known.state is not PeerState.OPEN
        if known.stream.peer != peer:
            self._leave(known, 0)
        self._bind(peer, known, out)
        self._greet(known, resumed=acknowledged is not None, out=out, now_ns=now_ns)
        if reopened:
            out.append(self._opened(known, resumed=True))
        self._go_on(known, acknowledged or 0, now_ns, out)

    def _greet(self, known: _Peer, *, resumed: bool, now_ns: int, out: list[SessionOutput]) -> None:
        """Say WELCOME; `resumed` is the peer's view of the session."""
        own = self._config
        welcome = Welcome(own.name, own.epoch, resumed, own.credits, own.lease_ms, known.features)
        out.append(known.stream.session_message(welcome, now_ns))

    def _opened(self, known: _Peer, *, resumed: bool) -> Opened:
        stream = known.stream
        return Opened(
            stream.peer, known.name, known.role, stream.peer_epoch, resumed, self._config.credits, known.features
        )

    def _go_on(self, known: _Peer, acknowledged: int, now_ns: int, out: list[SessionOutput]) -> None:
        """Put the stream to work."""
        known.state = PeerState.OPEN
        known.stream.resume(acknowledged, now_ns, out)
        self._alarm_ns = min(self._alarm_ns, known.stream.alarm_ns)

    def _bind(self, peer: bytes, known: _Peer, out: list[SessionOutput]) -> None:
        """Let the address speak for this session only."""
        stranger = self._by_address.get(peer)
        if stranger is not None and stranger is not known:
            self._lose(stranger, f"its address now speaks for {known.name}", out)
        known.stream.peer = peer
        self._by_address[peer] = known
        self._fenced.pop(peer, None)
        self._answered_ns.pop(peer, None)

    def _leave(self, known: _Peer, fenced_by: int) -> None:
        """Take the session's address away from it; with `fenced_by`, the old life there will be told so."""
        address = known.stream.peer
        if self._by_address.get(address) is known:
            del self._by_address[address]
        if fenced_by:
            _remember(self._fenced, address, fenced_by)

    def _lose(self, known: _Peer, reason: str, out: list[SessionOutput]) -> None:
        """The peer is gone: tell it once, keep what is needed to resume."""
        if known.state is PeerState.OPEN:
            known.state = PeerState.LOST
            known.stream.holding = True
            out.append(Lost(known.stream.peer, known.name, reason))

    def _forget(self, known: _Peer, now_ns: int) -> None:
        """Keep nothing of a session but its epoch."""
        own, stream = self._config, known.stream
        self._leave(known, 0)
        known.state = PeerState.CLOSED
        known.stream = Stream(own, stream.peer, stream.peer_epoch, own.lease_ms, now_ns)

    def _is_full(self) -> bool:
        """Whether no further name can be remembered; a name that said BYE gives way."""
        return len(self._by_name) >= MAX_NAMES and self._first_closed() is None

    def _first_closed(self) -> str | None:
        return next((name for name, known in self._by_name.items() if known.state is PeerState.CLOSED), None)

    def _make_room(self) -> None:
        """Drop the oldest session that said BYE if all places are taken."""
        if len(self._by_name) >= MAX_NAMES:
            closed = self._first_closed()
            if closed is not None:
                del self._by_name[closed]

    def _refusal(self, peer: bytes, epoch: int, refuse: Refuse) -> SendFrames:
        """Refuse, addressed to one life of the peer."""
        return SendFrames(peer, encode(self._config.epoch, epoch, 0, 0, refuse))

    def _reject(self, peer: bytes, reason: str) -> Rejected:
        self.rejects[reason] += 1
        return Rejected(peer, reason)


def _anybody(peer: bytes, name: str) -> bool:  # noqa: ARG001 - the seam's signature
    """Where the transport keeps strangers out, whoever gets in may bear any name that `allow` allows."""
    return True


def _remember(table: dict[bytes, int], peer: bytes, value: int) -> None:
    """Keep a value by address in a table that never grows beyond its bound."""
    if len(table) >= MAX_STRANGERS and peer not in table:
        del table[next(iter(table))]
    table[peer] = value
