"""What the driver and the system-call level have in common: messages of their own, both ways.

(The operation level has none: its traps come and are answered one by one, see `operation`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Message


class Outgoing(NamedTuple):
    """A message for the guest, with its payload frames."""

    body: Message
    payload: Sequence[Buffer] = ()


class Interceptor(Protocol):
    """One guest's interception at one level, for one life of its machine.

    Attributes:
        takes: Types of the messages that are its own.
    """

    takes: tuple[type[Message], ...]

    def message(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> bool:
        """Take a message of the guest, which is untrusted.

        Args:
            body: Of one of the types in `takes`.
            payload: Its frames.
            now_ns: Virtual time of the guest's machine.

        Returns:
            False if it is malformed; it then had no effect.
        """
        ...

    def flush(self, now_ns: int) -> Sequence[Outgoing]:
        """Return what is to be sent now, in batches; called after every step that may have changed something."""
        ...
