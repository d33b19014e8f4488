"""A TFTP server that files can be read from (RFC 1350), with options (RFC 2347).

The options are blksize (RFC 2348), timeout and tsize (RFC 2349).

Theory of operation. A read request starts a transfer at a server port of its own. The file is opened; then one block
at a time is read, sent, and sent again until it is acknowledged or `SENDS` times. A repeated acknowledgement is
ignored, so that no block is sent twice for one answer (RFC 1123, section 4.2.3.1). Block numbers begin again at 0
after 65535. Files are only reached by actions: `OpenFile` is answered by `FileOpened`, `ReadFile` by `FileRead`.
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from iovirt_dist.controllers.net.config import NS_PER_S
from iovirt_dist.controllers.net.packets import IPV4_HEADER_BYTES, UDP_HEADER_BYTES, Datagram

SERVER_PORT: Final = 69
FIRST_PORT: Final = 49152
"""Transfers have ports from here on (RFC 6335, section 6, "Dynamic Ports")."""
MAX_TRANSFERS: Final = 64
MAX_STATION_TRANSFERS: Final = 8
"""Of one MAC address, so that no guest takes all of them from the others."""
BLOCK_BYTES: Final = 512
BLOCK_RANGE: Final = (8, 65464)
"""Of option blksize."""
TIMEOUT_RANGE_S: Final = (1, 255)
SENDS: Final = 6
"""How often one message is sent without an answer before the transfer is given up."""
_HEADER_BYTES: Final = 4
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class _Op(enum.IntEnum):
    """Opcodes."""

    READ = 1
    WRITE = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OPTIONS = 6


class ErrorCode(enum.IntEnum):
    """Error codes (RFC 1350, appendix I)."""

    OTHER = 0
    NOT_FOUND = 1
    ACCESS = 2
    ILLEGAL = 4
    UNKNOWN_TRANSFER = 5


_ERRNO_CODES: Final = {errno.ENOENT: ErrorCode.NOT_FOUND, errno.EACCES: ErrorCode.ACCESS}


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Open a file of the folder; answered by `FileOpened`.

    Attributes:
        file: Number under which it will be known.
        name: As the guest wrote it.
    """

    file: int
    name: str


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Read from an open file; answered by `FileRead`."""

    file: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CloseFile:
    """Close a file; not answered."""

    file: int


@dataclass(frozen=True, slots=True)
class FileOpened:
    """`OpenFile` ended; `error` is an errno value, 0 for success, and then `size_bytes` is the file's."""

    file: int
    size_bytes: int
    error: int = 0


@dataclass(frozen=True, slots=True)
class FileRead:
    """`ReadFile` ended; `data` is shorter than asked for at the file's end only; `error` is an errno value or 0."""

    file: int
    data: bytes
    error: int = 0


FileAccess = OpenFile | ReadFile | CloseFile
FileOutcome = FileOpened | FileRead


class Client(NamedTuple):
    """Who reads.

    Attributes:
        mac: 6 bytes.
        address: 4 bytes.
        port: Its UDP port.
    """

    mac: bytes
    address: bytes
    port: int


Send = Callable[[Client, Datagram], None]


@dataclass(slots=True, eq=False)
class _Transfer:
    """One file on its way to one client.

    Attributes:
        client: To whom.
        port: The server's port, which is also the file's number.
        options: What the client wished and gets, by name; empty for none.
        block_bytes: Bytes of a block.
        timeout_ns: Until what was sent is sent again.
        block: Number of the block under way from 0, not cut to 16 bits; 0 is the answer to the options.
        message: What was sent last, empty while the file is read.
        last: Whether its acknowledgement ends the transfer.
        sends: How often it was sent.
        due_ns: When it is sent again.
    """

    client: Client
    port: int
    options: dict[str, int]
    block_bytes: int = BLOCK_BYTES
    timeout_ns: int = NS_PER_S
    block: int = 0
    message: bytes = b""
    last: bool = False
    sends: int = 0
    due_ns: int = 0


class TftpServer:
    """The server.

    Args:
        mtu: Largest IPv4 packet, bytes: blocks are made to fit.
        send: Sends a datagram to a client.

    Attributes:
        accesses: What is to be done with files; whoever does it clears it.
        started: Transfers that began.
        finished: Transfers whose last block was acknowledged.
        failed: Requests and transfers that ended otherwise.
    """

    def __init__(self, mtu: int, send: Send) -> None:
        self.accesses: list[FileAccess] = []
        self.started = self.finished = self.failed = 0
        self._block_max = mtu - IPV4_HEADER_BYTES - UDP_HEADER_BYTES - _HEADER_BYTES
        self._send = send
        self._transfers: dict[int, _Transfer] = {}
        self._clients: dict[Client, _Transfer] = {}
        self._next_port = FIRST_PORT

    def takes(self, port: int) -> bool:
        """Whether datagrams to this port are for the server."""
        return port == SERVER_PORT or port in self._transfers

    def receive(self, client: Client, datagram: Datagram) -> None:
        """Take a datagram from a client to a port of the server."""
        op = int.from_bytes(datagram.payload[:2], "big")
        if datagram.destination_port == SERVER_PORT:
            self._requested(client, op, datagram.payload[2:])
            return
        transfer = self._transfers[datagram.destination_port]
        if transfer.client != client:
            if op != _Op.ERROR:
                self._error(client, datagram.destination_port, ErrorCode.UNKNOWN_TRANSFER, "unknown transfer")
        elif op == _Op.ACK and len(datagram.payload) >= _HEADER_BYTES:
            self._acknowledged(transfer, int.from_bytes(datagram.payload[2:4], "big"))
        elif op == _Op.ERROR:
            self._end(transfer)
        else:
            self._fail(transfer, ErrorCode.ILLEGAL, "expected an acknowledgement")

    def opened(self, event: FileOpened, now_ns: int) -> None:
        """The file of a transfer is open, or is not."""
        transfer = self._transfers.get(event.file)
        if transfer is None:
            return
        if event.error:
            self._refuse(transfer, event.error)
        elif transfer.options:
            if "tsize" in transfer.options:
                transfer.options["tsize"] = event.size_bytes
            parts = [part for name, value in transfer.options.items() for part in (name, str(value))]
            message = _Op.OPTIONS.to_bytes(2, "big") + "".join(f"{part}\0" for part in parts).encode()
            self._transmit(transfer, message, now_ns)
        else:
            self._read_next(transfer)

    def read(self, event: FileRead, now_ns: int) -> None:
        """A block has been read."""
        transfer = self._transfers.get(event.file)
        if transfer is None:
            return
        if event.error:
            self._refuse(transfer, event.error)
            return
        transfer.last = len(event.data) < transfer.block_bytes
        number = (transfer.block & 0xFFFF).to_bytes(2, "big")
        self._transmit(transfer, _Op.DATA.to_bytes(2, "big") + number + event.data, now_ns)

    def deadline_ns(self) -> int | None:
        """When `tick` has something to do."""
        return min((transfer.due_ns for transfer in self._transfers.values() if transfer.message), default=None)

    def tick(self, now_ns: int) -> None:
        """Send again what was not answered in time, or give up."""
        due = [t for t in self._transfers.values() if t.message and t.due_ns <= now_ns]
        for transfer in due:
            if transfer.sends >= SENDS:
                self._fail(transfer, ErrorCode.OTHER, "timed out")
            else:
                self._repeat(transfer, now_ns)

    # --- requests

    def _requested(self, client: Client, op: int, rest: bytes) -> None:
        """A first message; one of a client that has acknowledged nothing yet has been sent again."""
        before = self._clients.get(client)
        if before is not None:
            if before.block <= 1:
                return
            self.failed += 1
            self._end(before)
        words = [word.decode("utf-8", "replace") for word in rest.split(b"\0")[:-1]]
        if op == _Op.WRITE:
            self._refuse_request(client, ErrorCode.ACCESS, "read only")
        elif op != _Op.READ or len(words) < 2 or not words[0]:
            if op != _Op.ERROR:
                self._refuse_request(client, ErrorCode.ILLEGAL, "expected a read request")
        elif words[1].lower() != "octet":
            self._refuse_request(client, ErrorCode.ILLEGAL, "only mode octet")
        elif len(self._transfers) >= MAX_TRANSFERS or self._has_most(client.mac):
            self._refuse_request(client, ErrorCode.OTHER, "too many transfers")
        else:
            wishes = zip(words[2::2], words[3::2], strict=False)
            self._start(client, words[0], {name.lower(): value for name, value in wishes})

    def _start(self, client: Client, name: str, wishes: dict[str, str]) -> None:
        transfer = _Transfer(client, self._free_port(), {})
        numbers = {key: int(text) for key, text in wishes.items() if _NUMBER.fullmatch(text)}
        blksize, timeout = numbers.get("blksize", 0), numbers.get("timeout", 0)
        if BLOCK_RANGE[0] <= blksize <= BLOCK_RANGE[1]:
            transfer.block_bytes = transfer.options["blksize"] = min(blksize, self._block_max)
        if TIMEOUT_RANGE_S[0] <= timeout <= TIMEOUT_RANGE_S[1]:
            transfer.options["timeout"] = timeout
            transfer.timeout_ns = timeout * NS_PER_S
        if "tsize" in numbers:
            transfer.options["tsize"] = 0
        self.started += 1
        self._transfers[transfer.port] = self._clients[client] = transfer
        self.accesses.append(OpenFile(transfer.port, name))

    def _has_most(self, mac: bytes) -> bool:
        """Whether a station has as many transfers as it may have."""
        return sum(client.mac == mac for client in self._clients) >= MAX_STATION_TRANSFERS

    def _free_port(self) -> int:
        """The next port that no transfer has; there are far more of them than transfers."""
        while self._next_port in self._transfers:
            self._step_port()
        port = self._next_port
        self._step_port()
        return port

    def _step_port(self) -> None:
        self._next_port = self._next_port + 1 if self._next_port < 0xFFFF else FIRST_PORT

    # --- transfers

    def _acknowledged(self, transfer: _Transfer, number: int) -> None:
        """Go on if this is about what was sent last."""
        if not transfer.message or number != transfer.block & 0xFFFF:
            return
        if transfer.last:
            self.finished += 1
            self._end(transfer)
        else:
            self._read_next(transfer)

    def _read_next(self, transfer: _Transfer) -> None:
        offset = transfer.block * transfer.block_bytes
        transfer.block += 1
        transfer.message = b""
        self.accesses.append(ReadFile(transfer.port, offset, transfer.block_bytes))

    def _transmit(self, transfer: _Transfer, message: bytes, now_ns: int) -> None:
        transfer.message = message
        transfer.sends = 0
        self._repeat(transfer, now_ns)

    def _repeat(self, transfer: _Transfer, now_ns: int) -> None:
        transfer.sends += 1
        transfer.due_ns = now_ns + transfer.timeout_ns
        self._send(transfer.client, Datagram(transfer.port, transfer.client.port, transfer.message))

    def _end(self, transfer: _Transfer) -> None:
        del self._transfers[transfer.port], self._clients[transfer.client]
        self.accesses.append(CloseFile(transfer.port))

    def _fail(self, transfer: _Transfer, code: ErrorCode, text: str) -> None:
        self.failed += 1
        self._error(transfer.client, transfer.port, code, text)
        self._end(transfer)

    def _refuse(self, transfer: _Transfer, error: int) -> None:
        code = _ERRNO_CODES.get(error, ErrorCode.OTHER)
        self._fail(transfer, code, errno.errorcode.get(error, str(error)))

    def _refuse_request(self, client: Client, code: ErrorCode, text: str) -> None:
        self.failed += 1
        self._error(client, SERVER_PORT, code, text)

    def _error(self, client: Client, port: int, code: ErrorCode, text: str) -> None:
        message = _Op.ERROR.to_bytes(2, "big") + code.to_bytes(2, "big") + text.encode() + b"\0"
        self._send(client, Datagram(port, client.port, message))
