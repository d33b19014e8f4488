"""The handshake phase of a connection, fixed newstyle, as a sans-IO core.

Theory of operation. `take` consumes whole messages from the inbox and adds answers to `out`, until the client has
chosen the export (EXPORT_NAME, GO), which ends the phase, or has lost its way, which ends the connection with a reason.
An option that is unknown, or that we know and do not serve (STARTTLS, metadata contexts: the disk behind cannot say
what of it is allocated), is answered ERR_UNSUP, and the client goes on with another.

The client is untrusted: an option is at most `MAX_OPTION_BYTES` long, and there are at most `MAX_OPTIONS`.

Source: NetworkBlockDevice/nbd, doc/proto.md, "Handshake phase".
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from struct import Struct
from typing import Final

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.nbd.inbox import Inbox
from iovirt_dist.gateway.nbd.protocol import (
    CLIENT_FLAGS,
    COUNT,
    EXPORT,
    EXPORT_PADDING,
    GREETING,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    INIT_MAGIC,
    LENGTH,
    MAX_BLOCK_BYTES,
    MAX_NAME_BYTES,
    MIN_BLOCK_BYTES,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    PREFERRED_BLOCK_BYTES,
    REPLY_MAGIC,
    Export,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    transmission_flags,
)

MAX_OPTION_BYTES: Final = 16 << 10
"""Most data of an option: a name of 4096 bytes and some thousand information requests."""
MAX_OPTIONS: Final = 256

_SERVED: Final = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


class Phase(enum.Enum):
    """Where the handshake is."""

    FLAGS = enum.auto()
    """The client's flags are due."""
    OPTIONS = enum.auto()
    """The client may send an option."""
    CHOSEN = enum.auto()
    """What follows is the transmission phase."""
    ABORTED = enum.auto()
    """The client has taken its leave."""


class Negotiation:
    """One connection's handshake.

    Args:
        export: What there is to choose.

    Attributes:
        phase: Where it is.
        structured: Whether READ is answered with structured replies.
        out: What is to be sent, the greeting first; whoever sends it clears it.
    """

    def __init__(self, export: Export) -> None:
        self.phase = Phase.FLAGS
        self.structured = False
        self.out: list[bytes] = [GREETING.pack(INIT_MAGIC, OPTION_MAGIC, _SERVED)]
        self._export = export
        self._zeroes = EXPORT_PADDING
        self._options = 0
        self._handlers: dict[int, Callable[[bytes], None]] = {
            Option.EXPORT_NAME: self._export_name,
            Option.ABORT: self._abort,
            Option.LIST: self._list,
            Option.INFO: lambda data: self._info(Option.INFO, data),
            Option.GO: lambda data: self._info(Option.GO, data),
            Option.STRUCTURED_REPLY: self._structured_reply,
        }

    def take(self, inbox: Inbox) -> None:
        """Take what there is of this phase.

        Raises:
            PeerError: The client breaks the protocol, and the connection must be closed.
        """
        if self.phase is Phase.FLAGS and (fields := _whole(inbox, CLIENT_FLAGS)) is not None:
            self._client_flags(*fields)
            inbox.start += CLIENT_FLAGS.size
        while self.phase is Phase.OPTIONS and (fields := _whole(inbox, OPTION)) is not None:
            magic, option, length = fields
            if magic != OPTION_MAGIC:
                raise PeerError("option-magic", f"{magic:#x}")
            if length > MAX_OPTION_BYTES:
                raise PeerError("option-length", f"option {option} of {length} bytes")
            begin = inbox.start + OPTION.size
            if inbox.end < begin + length:
                return
            inbox.start = begin + length
            self._option(option, bytes(inbox.view[begin : inbox.start]))

    def _client_flags(self, flags: int) -> None:
        if flags & ~_SERVED:
            raise PeerError("client-flags", f"{flags:#x}")
        if flags & HandshakeFlag.NO_ZEROES:
            self._zeroes = 0
        self.phase = Phase.OPTIONS

    def _option(self, option: int, data: bytes) -> None:
        self._options += 1
        if self._options > MAX_OPTIONS:
            raise PeerError("options", f"more than {MAX_OPTIONS}")
        handler = self._handlers.get(option)
        if handler is None:
            self._reply(option, Reply.ERR_UNSUP)
        else:
            handler(data)

    # --- options ("Option types")

    def _export_name(self, data: bytes) -> None:
        """EXPORT_NAME: there is no way to refuse but to close the connection."""
        if not self._known(data):
            raise PeerError("export-unknown")
        flags = transmission_flags(self._export, structured=self.structured)
        self.out.append(EXPORT.pack(self._export.size_bytes, flags) + bytes(self._zeroes))
        self.phase = Phase.CHOSEN

    def _abort(self, data: bytes) -> None:  # noqa: ARG002 - whatever it has to say
        self._reply(Option.ABORT, Reply.ACK)
        self.phase = Phase.ABORTED

    def _list(self, data: bytes) -> None:
        if data:
            self._reply(Option.LIST, Reply.ERR_INVALID, b"LIST has no data")
            return
        name = self._export.name.encode()
        self._reply(Option.LIST, Reply.SERVER, LENGTH.pack(len(name)) + name)
        self._reply(Option.LIST, Reply.ACK)

    def _structured_reply(self, data: bytes) -> None:
        if data:
            self._reply(Option.STRUCTURED_REPLY, Reply.ERR_INVALID, b"STRUCTURED_REPLY has no data")
            return
        self.structured = True
        self._reply(Option.STRUCTURED_REPLY, Reply.ACK)

    def _info(self, option: Option, data: bytes) -> None:
        """INFO, and GO, which ends the phase if the export is ours."""
        parsed = parse_info(data)
        if parsed is None:
            self._reply(option, Reply.ERR_INVALID, b"lengths do not add up")
            return
        name, wanted = parsed
        if not self._known(name):
            self._reply(option, Reply.ERR_UNKNOWN, b"no such export")
            return
        export = self._export
        flags = transmission_flags(export, structured=self.structured)
        sizes = INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, MIN_BLOCK_BYTES, PREFERRED_BLOCK_BYTES, MAX_BLOCK_BYTES)
        self._reply(option, Reply.INFO, INFO_EXPORT.pack(Info.EXPORT, export.size_bytes, flags))
        self._reply(option, Reply.INFO, sizes)
        for kind, text in ((Info.NAME, export.name), (Info.DESCRIPTION, export.description)):
            if kind in wanted and text:
                self._reply(option, Reply.INFO, COUNT.pack(kind) + text.encode())
        self._reply(option, Reply.ACK)
        if option is Option.GO:
            self.phase = Phase.CHOSEN

    def _known(self, name: bytes) -> bool:
        """Whether a name is our export's; no name stands for the default export, which is ours, too."""
        return name in (b"", self._export.name.encode())

    def _reply(self, option: int, kind: Reply, data: bytes = b"") -> None:
        self.out.append(OPTION_REPLY.pack(REPLY_MAGIC, option, kind, len(data)) + data)


def _whole(inbox: Inbox, layout: Struct) -> tuple[int, ...] | None:
    """Look at the next fields; None if they have not come yet."""
    if inbox.end - inbox.start < layout.size:
        return None
    return layout.unpack_from(inbox.view, inbox.start)


def parse_info(data: bytes) -> tuple[bytes, frozenset[int]] | None:
    """Decode the data of INFO or GO: a name, and which information is wanted; None if it is malformed."""
    if len(data) < LENGTH.size + COUNT.size:
        return None
    (length,) = LENGTH.unpack_from(data)
    behind = LENGTH.size + length
    if length > MAX_NAME_BYTES or len(data) < behind + COUNT.size:
        return None
    (count,) = COUNT.unpack_from(data, behind)
    kinds = data[behind + COUNT.size :]
    if len(kinds) != count * COUNT.size:
        return None
    return data[LENGTH.size : behind], frozenset(kind for (kind,) in COUNT.iter_unpack(kinds))
