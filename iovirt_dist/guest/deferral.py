"""Messages that wait until the CPU rests.

What concerns armed queues reads or writes guest memory, which belongs to the CPU while it runs. Such a message waits,
and so does every one behind it: a reply or an interrupt that overtook it would show itself before the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue

MAX_DEFERRED = 256
"""Messages above which no more should be received before the CPU rests."""

MAX_DEFERRED_BYTES = 64 << 20
"""The same for their payload."""

_CONCERN_MEMORY = frozenset({ArmQueue, DisarmQueue, Completions})


class Deferral:
    """Messages in the order in which they came; false while there is none."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self) -> None:
        self._messages: deque[tuple[Message, Sequence[Buffer]]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def full(self) -> bool:
        """Whether no more should be received before the CPU rests."""
        return len(self._messages) >= MAX_DEFERRED or self._bytes >= MAX_DEFERRED_BYTES

    def concerns(self, body: Message) -> bool:
        """Whether a message that comes while the CPU runs must wait."""
        return bool(self._messages) or type(body) in _CONCERN_MEMORY

    def put(self, body: Message, payload: Sequence[Buffer]) -> None:
        """Keep a message."""
        self._messages.append((body, payload))
        self._bytes += sum(map(len, payload))

    def take(self) -> tuple[Message, Sequence[Buffer]]:
        """Return the oldest message, which must be there, and forget it."""
        body, payload = self._messages.popleft()
        self._bytes -= sum(map(len, payload))
        return body, payload

    def clear(self) -> None:
        """Forget all."""
        self._messages.clear()
        self._bytes = 0
