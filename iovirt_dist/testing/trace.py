"""What crossed the links of a rig: every message that arrived, decoded, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import Buffer, decode
from iovirt_dist.wire.commands import Command, Completion, unpack_commands, unpack_completions
from iovirt_dist.wire.messages import Complete, Message, Submit, Trap, TrapKind, TrapReply

DEFAULT_CAPACITY = 65536


class Crossing(NamedTuple):
    """One arrival of a message.

    Attributes:
        at_ns: Virtual time of the arrival.
        sender: Node that sent it, ``?`` where its connection is gone already.
        receiver: Node that it reached.
        body: The message; None for bytes that are none.
        payload: Its raw frames.
        sequence: Its number in the session; 0 for session messages.
        taken: It was the next one of its session, so the layers above got it: a duplicate or a message after a gap
            was not taken, and a session message never is.
    """

    at_ns: int
    sender: str
    receiver: str
    body: Message | None
    payload: tuple[bytes, ...] = ()
    sequence: int = 0
    taken: bool = False

    @property
    def commands(self) -> list[Command]:
        """The commands of a `Submit`; empty for any other message."""
        return unpack_commands(self.body.commands) if isinstance(self.body, Submit) else []

    @property
    def completions(self) -> list[Completion]:
        """The completions of a `Complete`; empty for any other message."""
        if not isinstance(self.body, Complete):
            return []
        return unpack_completions(self.body.completions)

    def __str__(self) -> str:
        """Return one line: time in ms, who to whom, what."""
        mark = "" if self.taken or not self.sequence else " (not taken)"
        return f"{self.at_ns / 1e6:12.3f} ms  {self.sender:>12} -> {self.receiver:<12} {self.what()}{mark}"

    def what(self) -> str:
        """Say what the message is, for people."""
        body = self.body
        if body is None:
            return "no message"
        if isinstance(body, Trap):
            return f"Trap {body.number} {_describe_trap(body)}"
        if isinstance(body, TrapReply):
            outcome = f"fault {body.fault}" if body.fault >= 0 else f"value {body.value:#x}"
            return f"TrapReply {body.number} {outcome}, {sum(map(len, self.payload))} bytes, lines {body.lines}"
        if isinstance(body, Submit):
            return "Submit " + ", ".join(
                f"{c.opcode.name} {_name(c.id)} at {c.offset} length {c.length}" for c in self.commands
            )
        if isinstance(body, Complete):
            return "Complete " + ", ".join(f"{c.status.name} {_name(c.id)}" for c in self.completions)
        return repr(body)


def _name(id_: bytes) -> str:
    """A request's identity for people: guest, queue, sequence."""
    return ".".join(map(str, RequestId.unpack(id_)))


def _describe_trap(trap: Trap) -> str:
    times = f" x {trap.count}" if trap.count > 1 else ""
    if trap.kind is TrapKind.INTERRUPT_ACKNOWLEDGE:
        return "INTA"
    value = f" value {trap.value:#x}" if trap.kind in (TrapKind.PORT_OUT, TrapKind.MMIO_STORE) else ""
    return f"{trap.kind.name} {trap.address:#x} width {trap.width}{times}{value} privilege {trap.privilege}"


class MessageTrace:
    """A bounded ring of crossings, oldest first; iterate over it.

    Args:
        capacity: Most crossings that are kept.

    Attributes:
        dropped: Crossings that fell out of the ring.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.dropped = 0
        self._ring: deque[Crossing] = deque(maxlen=capacity)
        self._last: dict[tuple[str, str], tuple[int, int, int]] = {}

    def __iter__(self) -> Iterator[Crossing]:
        return iter(self._ring)

    def __len__(self) -> int:
        return len(self._ring)

    def __str__(self) -> str:
        """Return the whole trace, a line each."""
        return "\n".join(map(str, self._ring))

    def clear(self) -> None:
        """Forget what was recorded; what counts as taken stays known."""
        self._ring.clear()

    def record(self, at_ns: int, sender: str, receiver: str, frames: Sequence[Buffer]) -> Crossing:
        """Keep an arrival."""
        try:
            envelope, payload = decode(frames)
        except DecodeError:
            return self._keep(Crossing(at_ns, sender, receiver, None))
        taken = False
        if envelope.sequence:
            key = (sender, receiver)
            epoch, peer_epoch, last = self._last.get(key, (0, 0, 0))
            if (epoch, peer_epoch) != (envelope.epoch, envelope.peer_epoch):
                last = 0
            taken = envelope.sequence == last + 1
            if taken:
                self._last[key] = (envelope.epoch, envelope.peer_epoch, envelope.sequence)
        data = tuple(bytes(frame) for frame in payload)
        return self._keep(Crossing(at_ns, sender, receiver, envelope.body, data, envelope.sequence, taken))

    def select(self, *kinds: type, sender: str = "", receiver: str = "", taken: bool | None = None) -> list[Crossing]:
        """Return the crossings that fit, oldest first.

        Args:
            kinds: Message types (`wire.messages`); none for all.
            sender: Only from this node; empty for all.
            receiver: Only to this node; empty for all.
            taken: Only those that the layers above got (True) or did not get (False); None for both.
        """
        return [
            crossing
            for crossing in self._ring
            if (not kinds or isinstance(crossing.body, kinds))
            and (not sender or crossing.sender == sender)
            and (not receiver or crossing.receiver == receiver)
            and (taken is None or crossing.taken is taken)
        ]

    def _keep(self, crossing: Crossing) -> Crossing:
        if len(self._ring) == self._ring.maxlen:
            self.dropped += 1
        self._ring.append(crossing)
        return crossing
