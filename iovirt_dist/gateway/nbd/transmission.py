"""The transmission phase of a connection as a sans-IO core: requests become pieces, and done pieces replies.

Theory of operation. `take` reads requests from the inbox for as long as the disk has room, and divides each into
pieces that the disk can do at once; a WRITE gives a piece when all of its data is there. `finished` counts pieces, puts
the data of a READ together if it had several, and answers with the last one. A command with FUA that has written
becomes a flush first: only then is it answered. Replies are in the order in which requests end.

A READ has one chunk if structured replies were negotiated, so "don't fragment" holds always; all else is answered
with simple replies, which is allowed either way.

The client is untrusted. It has at most `MAX_REQUESTS` and about `MAX_HELD_BYTES` of READ unanswered; more waits in the
inbox, which fills, and the socket is read no more. What the protocol has an error for is answered with it; wrong magic
numbers and a WRITE that is longer than was offered end the connection.

Source: NetworkBlockDevice/nbd, doc/proto.md, "Transmission phase".
"""

from __future__ import annotations

from typing import Final, TypeAlias

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.nbd.inbox import Inbox
from iovirt_dist.gateway.nbd.protocol import (
    CHUNK,
    CHUNK_DATA,
    CHUNK_DONE,
    CHUNK_ERROR,
    CHUNK_MAGIC,
    MAX_BLOCK_BYTES,
    MIN_BLOCK_BYTES,
    REQUEST,
    REQUEST_MAGIC,
    SIMPLE_MAGIC,
    SIMPLE_REPLY,
    Chunk,
    Command,
    CommandFlag,
    Export,
    NbdError,
    TransmissionFlag,
)
from iovirt_dist.wire.codec import Buffer

MAX_REQUESTS: Final = 256
"""Requests of a connection that are not answered."""
MAX_HELD_BYTES: Final = MAX_BLOCK_BYTES
"""Data of a connection's unanswered READs, together; one alone may always come."""
ZEROES_PIECE_BYTES: Final = 4 << 20
"""What a piece clears: less than the disk would at once (64 MiB), so that others have their turn."""
TRIM_PIECE_BYTES: Final = 1 << 32
"""More than a request can ask for: a TRIM is never divided."""

_READ, _WRITE, _DISC, _FLUSH = int(Command.READ), int(Command.WRITE), int(Command.DISC), int(Command.FLUSH)
_FUA = int(CommandFlag.FUA)
_MASK = MIN_BLOCK_BYTES - 1
_OK = int(NbdError.OK)
_DATA = int(Chunk.OFFSET_DATA)
_OFFSET_BYTES = CHUNK_DATA.size - CHUNK.size
_unpack_request = REQUEST.unpack_from
_pack_simple = SIMPLE_REPLY.pack
_pack_data = CHUNK_DATA.pack


class Request:
    """A request that is not answered.

    Attributes:
        owner: Whose it is.
        command: A `Command`; FLUSH once all that a command with FUA has written is done.
        cookie: The client's name for it.
        offset: First byte.
        length: Bytes.
        fua: Whether it must be stable before it is answered.
        asked: Bytes of it that have become pieces.
        left: Pieces that are not done.
        error: `NbdError` of the answer.
        data: What a READ of several pieces has brought.
    """

    fua = False
    asked = 0
    left = 0
    error = _OK
    data: bytearray | None = None

    def __init__(self, owner: Transmission, command: int, cookie: int, offset: int, length: int) -> None:
        self.owner = owner
        self.command = command
        self.cookie = cookie
        self.offset = offset
        self.length = length


Piece: TypeAlias = tuple[Request, int, int, Buffer]
"""What the disk does at once: request, where in it, how many bytes, and the data of a WRITE."""


class Transmission:
    """One connection's requests.

    Args:
        export: What is served.
        inbox: Where requests come in.
        structured: Whether a READ is answered with a structured reply.
        piece_bytes: Most data that the disk reads or writes at once, a multiple of 512.

    Attributes:
        out: What is to be sent. It is void when more pieces are given to the disk: the data of a READ is where the
            disk has put it.
        outstanding: Requests that are not answered.
        left: Whether the client has taken its leave: nothing more is taken, and with the last answer it is over.
        blocked: Whether the client does not read its answers: nothing more is taken until it does.
        gone: Whether the connection is closed: nobody waits for answers.
        refused: Requests that were answered with an error without the disk.
        failed: Requests that the disk did not do.
    """

    def __init__(self, export: Export, inbox: Inbox, *, structured: bool, piece_bytes: int) -> None:
        self.out: list[Buffer] = []
        self.outstanding = 0
        self.left = False
        self.blocked = False
        self.gone = False
        self.refused = 0
        self.failed = 0
        self._export = export
        self._size = export.size_bytes
        self._writable = not export.read_only
        self._plain = _WRITE if self._writable else _READ
        self._inbox = inbox
        self._structured = structured
        self._current: Request | None = None
        self._shut = False
        self._drained = False
        self._skip = 0
        self._held = 0
        self._piece_bytes = {
            _READ: piece_bytes,
            _WRITE: piece_bytes,
            _FLUSH: 1,
            int(Command.TRIM): TRIM_PIECE_BYTES,
            int(Command.WRITE_ZEROES): ZEROES_PIECE_BYTES,
        }
        self._flags = _flags_by_command(structured=structured)

    @property
    def over(self) -> bool:
        """Whether nothing more will come of the client, and it has all of its answers."""
        return (self.left or self._drained) and not self.outstanding

    def shut(self) -> None:
        """The client sends no more: what has come is still done, and with its last answer it is over."""
        inbox = self._inbox
        self._shut = True
        self._drained = self._current is None and inbox.end - inbox.start < self._skip + REQUEST.size

    def take(self, pieces: list[Piece], most: int) -> None:
        """Take what the client wants.

        Args:
            pieces: Where to add; the data of a WRITE is void when the inbox is asked for room.
            most: How many pieces at most.

        Raises:
            PeerError: The client breaks the protocol, and the connection must be closed.
        """
        inbox, most_bytes = self._inbox, self._piece_bytes
        while most > 0:
            request = self._current or self._next()
            if request is None:
                return
            command, at = request.command, request.asked
            left = request.length - at
            length = min(left, most_bytes[command])
            payload: Buffer = b""
            if command == _WRITE:
                begin = inbox.start
                if inbox.end - begin < length:
                    if self._shut:
                        raise PeerError("truncated", "the data of a WRITE")
                    self._current = request
                    return
                inbox.start = begin + length
                payload = inbox.view[begin : begin + length]
            pieces.append((request, at, length, payload))
            request.left += 1
            request.asked = at + length
            self._current = request if length < left else None
            most -= 1

    def _next(self) -> Request | None:
        """Take the next request that needs the disk; None if there is none, or it must wait."""
        inbox = self._inbox
        while not (self.left or self.blocked):
            if (self._skip and not self._skipped()) or inbox.end - inbox.start < REQUEST.size:
                self._drained = self._shut
                return None
            if self.outstanding >= MAX_REQUESTS:
                return None
            magic, flags, command, cookie, offset, length = _unpack_request(inbox.view, inbox.start)
            if magic != REQUEST_MAGIC:
                raise PeerError("request-magic", f"{magic:#x}")
            held = length if command == _READ and length <= MAX_BLOCK_BYTES else 0
            if held and self._held and self._held + held > MAX_HELD_BYTES:
                return None
            inbox.start += REQUEST.size
            if command == _DISC:
                self.left = True
                return None
            request = Request(self, command, cookie, offset, length)
            self.outstanding += 1
            if (
                not flags
                and command <= self._plain
                and 0 < length <= MAX_BLOCK_BYTES
                and offset + length <= self._size
                and not (offset | length) & _MASK
            ):
                self._held += held
                return request
            request.error = self._refusal(flags, command, offset, length)
            if request.error == _OK and (length or command == _FLUSH):
                self._held += held
                request.fua = bool(flags & _FUA)
                return request
            self._skip = length if command == _WRITE else 0
            self.refused += request.error != _OK
            self._answer(request, b"")
        return None

    def _skipped(self) -> bool:
        """Drop the data of a WRITE that was refused; return whether all of it has come."""
        inbox = self._inbox
        now = min(self._skip, inbox.end - inbox.start)
        inbox.start += now
        self._skip -= now
        return not self._skip

    def _refusal(self, flags: int, command: int, offset: int, length: int) -> int:
        """Return the error of a request that cannot be done ("Error values").

        Raises:
            PeerError: It is a WRITE with more data than we take.
        """
        if command == _WRITE and length > MAX_BLOCK_BYTES:
            raise PeerError("write-length", f"{length} bytes")
        allowed = self._flags.get(command)
        if allowed is None or flags & ~allowed:
            return NbdError.EINVAL
        if command == _FLUSH:
            return NbdError.EINVAL if offset or length else _OK
        if command != _READ and not self._writable:
            return NbdError.EPERM
        if command == Command.TRIM and TransmissionFlag.SEND_TRIM not in self._export.flags:
            return NbdError.EINVAL
        if command == Command.WRITE_ZEROES and TransmissionFlag.SEND_WRITE_ZEROES not in self._export.flags:
            return NbdError.EINVAL
        if offset + length > self._size:
            return NbdError.EINVAL if command in (_READ, Command.TRIM) else NbdError.ENOSPC
        if (offset | length) & _MASK or (command == _READ and length > MAX_BLOCK_BYTES):
            return NbdError.EINVAL
        return _OK

    # --- outcomes

    def finished(self, request: Request, at: int, done: bool, data: memoryview) -> bool:
        """Note that a piece has ended, and answer if it was the last.

        Args:
            request: Whose piece.
            at: Where in it.
            done: Whether the disk did it.
            data: What was read.

        Returns:
            Whether the request is to be flushed now: its next piece is a FLUSH.
        """
        whole = len(data) == request.length
        if whole and done and request.command == _READ:
            self._held -= request.length
            self._answer(request, data)
            return False
        request.left -= 1
        if not done:
            request.error = NbdError.EIO
        elif request.command == _READ and not whole:
            if request.data is None:
                request.data = bytearray(request.length)
            request.data[at : at + len(data)] = data
        if request.left or request.asked < request.length:
            return False
        if request.fua and request.command != _READ and request.error == _OK:
            request.command, request.length, request.asked, request.fua = _FLUSH, 0, 0, False
            request.left = 1
            return True
        self.failed += request.error != _OK
        if request.command == _READ:
            self._held -= request.length
        self._answer(request, data if whole else request.data or b"")
        return False

    def _answer(self, request: Request, data: Buffer) -> None:
        self.outstanding -= 1
        error, cookie, length, out = request.error, request.cookie, request.length, self.out
        if request.command != _READ:
            out.append(_pack_simple(SIMPLE_MAGIC, error, cookie))
            return
        if not self._structured:
            out.append(_pack_simple(SIMPLE_MAGIC, error, cookie))
        elif error:
            behind = CHUNK_ERROR.size - CHUNK.size
            out.append(CHUNK_ERROR.pack(CHUNK_MAGIC, CHUNK_DONE, Chunk.ERROR, cookie, behind, error, 0))
        elif not length:
            out.append(CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, Chunk.NONE, cookie, 0))
        else:
            out.append(_pack_data(CHUNK_MAGIC, CHUNK_DONE, _DATA, cookie, length + _OFFSET_BYTES, request.offset))
        if length and not error:
            out.append(data)


def _flags_by_command(*, structured: bool) -> dict[int, int]:
    """Flags that a command may have; FUA may be on any ("Command flags"), but for what is answered by nothing."""
    return {
        Command.READ: int(CommandFlag.FUA | (CommandFlag.DF if structured else 0)),
        Command.WRITE: int(CommandFlag.FUA),
        Command.FLUSH: int(CommandFlag.FUA),
        Command.TRIM: int(CommandFlag.FUA),
        Command.WRITE_ZEROES: int(CommandFlag.FUA | CommandFlag.NO_HOLE),
    }
