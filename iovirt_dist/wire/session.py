"""What a session is: its settings and what comes out of its two ends.

A session gives the layers above in-order, exactly-once delivery of messages between two lives (epochs) of two
processes, liveness, and resumption after a broken connection. `wire.opener` is the side that connects, `wire.acceptor`
the side that answers many; both build on `wire.stream`, which numbers, acknowledges and repeats.

Theory of operation. Every envelope names both lives, so a message that outlived a restart is recognised. Messages are
numbered from 1 in each direction; the receiver takes only the next number, drops everything else and reports a gap
(PING with stamp 0); the sender keeps messages until they are acknowledged and goes back to the first missing one
(go-back-N, as HDLC's REJ: ISO/IEC 13239, section 6.11.4.2). Acknowledgements ride on every envelope. Silence for the
lease ends the session but keeps its state: HELLO and WELCOME of the same two epochs resume it, both sides repeat what
is unacknowledged, and the layers above see neither loss nor duplicate. Any other pair of epochs is a new session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from iovirt_dist.errors import ConfigError
from iovirt_dist.step import Record
from iovirt_dist.wire.codec import Buffer, Frames
from iovirt_dist.wire.messages import Bye, Hello, Message, Ping, Pong, Refuse, Role, Welcome

MAX_WINDOW = 65536
"""Largest window that anybody may configure; a sequence number further ahead than this is nonsense."""
MAX_EPOCH = (1 << 63) - 1
MILLISECOND_NS = 1_000_000
COUNTERPART = {Role.GUEST: Role.HYPERVISOR, Role.HYPERVISOR: Role.CONTROLLER}
"""Which role answers the HELLO of which: guests open sessions to hypervisors, hypervisors to controllers."""
SESSION_TYPES = frozenset({Hello, Welcome, Refuse, Ping, Pong, Bye})
"""Messages outside the sequence numbers."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Settings of one end.

    Attributes:
        role: What this process is.
        name: Its name in the topology.
        epoch: Its life, 1..2**63-1, greater than in every earlier life.
        features: What it can do beyond the protocol version, by name, at most 32.
        credits: Requests that it lets a peer have in flight, 1..65536 (told by the accepting end).
        window: Most unacknowledged messages that it keeps per peer, 1..65536.
        lease_ms: Silence after which a peer is lost, 10..600000; the accepting end's value holds for both.
        ping_ms: Silence after which a sign of life is sent; 0 for a quarter of the lease.
        retry_ms: First interval of repeating HELLO and unacknowledged messages; it doubles up to two seconds.

    Raises:
        ConfigError: A value is outside its range.
    """

    role: Role
    name: str
    epoch: int
    features: tuple[str, ...] = ()
    credits: int = 64
    window: int = 4096
    lease_ms: int = 2000
    ping_ms: int = 0
    retry_ms: int = 200

    def __post_init__(self) -> None:
        ranges = (
            ("epoch", self.epoch, 1, MAX_EPOCH),
            ("credits", self.credits, 1, 65536),
            ("window", self.window, 1, MAX_WINDOW),
            ("lease_ms", self.lease_ms, 10, 600_000),
            ("ping_ms", self.ping_ms, 0, self.lease_ms),
            ("retry_ms", self.retry_ms, 1, 600_000),
        )
        for key, value, low, high in ranges:
            if not low <= value <= high:
                raise ConfigError(f"{key} is {value}", self.name, f"use {low}..{high}")
        for name in (self.name, *self.features):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} is no name", self.name, "use 1 to 64 letters, digits, '_', '.' and '-'")
        if len(self.features) > 32:
            raise ConfigError(f"{len(self.features)} features", self.name, "use at most 32")


class SendFrames(Record, frozen=True):
    """Put these frames on the wire to `peer`; without frames there is nothing to do (the message waits)."""

    peer: bytes
    frames: Frames


class Opened(NamedTuple):
    """A session is open.

    Attributes:
        peer: The transport's address of the peer, which may differ from an earlier one of the same session.
        name: The peer's name.
        role: What the peer is.
        epoch: The peer's life.
        resumed: The session goes on, and nothing was lost. False: it is new, what was queued is dropped, and the
            layer above rebuilds its state.
        credits: Requests that the opening end may have in flight.
        features: What both ends can do.
    """

    peer: bytes
    name: str
    role: Role
    epoch: int
    resumed: bool
    credits: int
    features: tuple[str, ...]


class Delivered(Record, frozen=True):
    """The next message of `peer`, in order and once; `acknowledged`: what of ours it had when this left it first."""

    peer: bytes
    body: Message
    payload: Sequence[Buffer]
    acknowledged: int = 0


class Lost(NamedTuple):
    """The peer is gone: its lease ran out, it said BYE, or another life took its place. Told once per loss."""

    peer: bytes
    name: str
    reason: str


class Rejected(NamedTuple):
    """A message was refused (or we were), for a stable reason, and counted."""

    peer: bytes
    reason: str


SessionOutput: TypeAlias = SendFrames | Opened | Delivered | Lost | Rejected
