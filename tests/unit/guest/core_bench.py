"""A guest core with a hypervisor's end of its session, in virtual time."""

from __future__ import annotations

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.core import Action, FramesReceived, GuestCore, Send, Started, TimerFired, TrapRaised
from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.messages import Message, Role, TrapKind
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig

MS = 1_000_000
SECOND = 1000 * MS
SYSTEM = IoPrivilege(0)


def raised(kind: TrapKind, address: int = 0x3F8, value: int = 0, data: bytes = b"", count: int = 1) -> TrapRaised:
    """A trap of privileged code, one byte wide."""
    return TrapRaised(kind, address, 1, count, value, data, SYSTEM)


class Bench:
    """A guest core and a hypervisor's end of its session.

    Args:
        memory: The guest's RAM.

    Attributes:
        messages: What the hypervisor got, with payload.
        safe: Whether the CPU rests when the session's own messages come.
    """

    def __init__(self, memory: GuestMemory | None = None) -> None:
        self.now_ns = SECOND
        self.safe = True
        self.core = GuestCore(SessionConfig(Role.GUEST, "alice", 3), "hv", memory)
        self.messages: list[tuple[Message, list[bytes]]] = []
        self.hypervisor = self.new_hypervisor(1)

    def new_hypervisor(self, epoch: int) -> Acceptor:
        """A life of the hypervisor."""
        self.hypervisor = Acceptor(SessionConfig(Role.HYPERVISOR, "hv", epoch), lambda _hello: None)
        return self.hypervisor

    def do(self, event: object) -> list[Action]:
        """Hand in an event; deliver what the core sends; returns all its other actions."""
        told: list[Action] = []
        for action in self.core.handle(event, self.now_ns):  # type: ignore[arg-type]  # any event
            if isinstance(action, Send):
                told += self._deliver(action)
            else:
                told.append(action)
        return told

    def say(self, body: Message, *payload: bytes, safe: bool = True) -> list[Action]:
        """The hypervisor sends a message; `safe` if the CPU rests when it comes."""
        return self.do(FramesReceived(self.hypervisor.send(b"alice", body, payload, self.now_ns).frames, safe))

    def tick(self, later_ns: int = 0) -> list[Action]:
        """Time passes."""
        self.now_ns += later_ns
        return self.do(TimerFired())

    def bodies(self, kind: type[Message]) -> list[Message]:
        """Messages of one type that the hypervisor got."""
        return [body for body, _ in self.messages if isinstance(body, kind)]

    def _deliver(self, send: Send) -> list[Action]:
        if not send.frames:
            return []
        told: list[Action] = []
        for output in self.hypervisor.receive(b"alice", send.frames, self.now_ns):
            if isinstance(output, Delivered):
                self.messages.append((output.body, [bytes(frame) for frame in output.payload]))
            elif isinstance(output, SendFrames) and output.frames:
                told += self.do(FramesReceived(output.frames, self.safe))
        return told


def connected(memory: GuestMemory | None = None) -> Bench:
    """A bench whose session is open."""
    bench = Bench(memory)
    bench.do(Started())
    return bench
