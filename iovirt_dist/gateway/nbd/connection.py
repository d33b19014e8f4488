"""One client of the gateway, from its greeting to its end; a sans-IO core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.nbd.inbox import Inbox
from iovirt_dist.gateway.nbd.negotiation import Negotiation, Phase
from iovirt_dist.gateway.nbd.protocol import Export
from iovirt_dist.gateway.nbd.transmission import Piece, Transmission
from iovirt_dist.wire.codec import Buffer

_SLACK_BYTES: Final = 128 << 10
"""Room in the inbox behind a piece of data and its header."""

Send = Callable[[Sequence[Buffer]], None]
"""Sends buffers, which are the caller's again when it returns."""

LEFT: Final = "left"
"""Reason of a client that took its leave."""
LOST: Final = "lost"
"""Reason of one that did not."""


class Connection:
    """A client.

    Args:
        export: What is served.
        piece_bytes: As `Transmission` has it.
        send: Sends to the client.
        close: Closes the socket when what was sent is out; gets the reason, a short stable word.

    Attributes:
        inbox: Where the socket's bytes go.
        transmission: The second phase; None before it.
        closed: Why it is over; empty while it is not.
    """

    def __init__(self, export: Export, piece_bytes: int, send: Send, close: Callable[[str], None]) -> None:
        self.inbox = Inbox(piece_bytes + _SLACK_BYTES)
        self.transmission: Transmission | None = None
        self.closed = ""
        self._export = export
        self._piece_bytes = piece_bytes
        self._send = send
        self._close = close
        self._negotiation = Negotiation(export)
        self._greet()

    def received(self, count: int) -> None:
        """Take what the socket has put into the inbox; requests stay there until `take`."""
        self.inbox.received(count)
        if self.transmission is None and not self.closed:
            try:
                self._negotiation.take(self.inbox)
            except PeerError as error:
                self._greet()
                self.close(error.reason)
                return
            self._greet()
            if self._negotiation.phase is Phase.ABORTED:
                self.close(LEFT)
            elif self._negotiation.phase is Phase.CHOSEN:
                self.transmission = Transmission(
                    self._export,
                    self.inbox,
                    structured=self._negotiation.structured,
                    piece_bytes=self._piece_bytes,
                )

    def shut(self) -> None:
        """The client sends no more; it gets the answers of what it has sent, if it is so far ("NBD_CMD_DISC")."""
        if self.transmission is None:
            self.close(LOST)
            return
        self.transmission.shut()
        self.flush()

    def take(self, pieces: list[Piece], most: int) -> None:
        """Take requests, as `Transmission.take`; a client that breaks the protocol is closed."""
        if self.transmission is None or self.closed:
            return
        try:
            self.transmission.take(pieces, most)
        except PeerError as error:
            self.flush()
            self.close(error.reason)

    def flush(self) -> None:
        """Send what there is to answer, and close if it was the last."""
        transmission = self.transmission
        if transmission is None or self.closed:
            return
        if transmission.out:
            self._send(transmission.out)
            transmission.out.clear()
        if transmission.over:
            self.close(LEFT if transmission.left else LOST)

    def close(self, reason: str) -> None:
        """End it; outcomes of what the disk still does are for nobody."""
        if not self.closed:
            self.closed = reason
            if self.transmission is not None:
                self.transmission.gone = True
            self._close(reason)

    def _greet(self) -> None:
        if self._negotiation.out:
            self._send(self._negotiation.out)
            self._negotiation.out.clear()
