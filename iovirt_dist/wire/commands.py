"""Packed command and completion entries of the controller protocol.

A batch is one binary field of fixed-size little-endian entries, so sixty-four requests cost one msgpack field
instead of sixty-four nested lists. The shape follows NVMe's submission and completion queue entries (NVM Express
Base Specification 2.0, sections 3.3.3.1 and 3.3.3.2): command id, opcode, namespace, range; then id, status, length.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import NamedTuple, TypeAlias

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.payload import split_payload

_COMMAND = struct.Struct("<16sB3xIQQ")
_COMPLETION = struct.Struct("<16sH2xIQ")
COMMAND_BYTES = _COMMAND.size
"""40: request id 16 bytes, opcode u8, flags u8 (0), zero u16, unit u32, offset u64, length u64."""
COMPLETION_BYTES = _COMPLETION.size
"""32: request id 16 bytes, status u16, zero u16, data length u32, value u64."""
_COMMAND_ZEROES = (17, 18, 19)
_COMPLETION_ZEROES = (18, 19)
"""Places of the bytes that must be zero in each entry."""
MAX_BATCH = 1024
MAX_DATA_BYTES = 4 << 20
"""Most data that one command moves."""
MIN_FRAME_BYTES = 14
"""Shortest Ethernet frame that is one: its header (IEEE 802.3-2018, section 3.1.1), without its check sequence."""
MAX_FRAME_BYTES = 9216
"""Longest Ethernet frame of a switch: a jumbo frame, without its check sequence."""


class Opcode(enum.IntEnum):
    """What a controller is asked to do, over all device classes."""

    IDENTIFY = 1
    """Payload: the unit's name. Completion: value = unit number, payload = `UnitIdentity` bytes."""
    READ = 2
    WRITE = 3
    FLUSH = 4
    DISCARD = 5
    """The range is needed no more: it reads as zeroes from then on, and its space may be given back."""
    WRITE_ZEROES = 6
    """The range reads as zeroes and keeps its space. Like DISCARD it carries no data, and any length will do."""
    CONSOLE_TRANSMIT = 16
    """Payload: bytes for the terminal."""
    CONSOLE_RECEIVE = 17
    """Completes when the terminal has input; at most `length` bytes come back."""
    ENTROPY_GET = 24
    """Completes with random bytes: at least one, at most `length`."""
    NET_TRANSMIT = 32
    """Payload: one Ethernet frame for the port, without its check sequence. OK says that the switch has seen it."""
    NET_RECEIVE = 33
    """Completes when a frame leaves the port; at most `length` bytes come back, of a longer one nothing."""


class Status(enum.IntEnum):
    """Outcome of a command."""

    OK = 0
    UNKNOWN_OPCODE = 1
    UNKNOWN_UNIT = 2
    OUT_OF_RANGE = 3
    READ_ONLY = 4
    MEDIUM_ERROR = 5
    """The medium failed; after a failed sync the unit refuses writes until the controller restarts."""
    BAD_LENGTH = 6
    QUEUE_FULL = 7
    ABORTED = 8
    """The queue pair ended before the command was done."""


WITH_DATA_OUT = frozenset({Opcode.IDENTIFY, Opcode.WRITE, Opcode.CONSOLE_TRANSMIT, Opcode.NET_TRANSMIT})
LOST_WITH_CONTROLLER = frozenset({Opcode.NET_TRANSMIT})
"""What ends with ABORTED when its controller's life ends: done twice it would do harm, lost it does none."""
_OPCODES = {int(opcode): opcode for opcode in Opcode}
_STATUSES = {int(status): status for status in Status}


class Command(NamedTuple):
    """One request to a controller.

    Attributes:
        id: Identity of the request, end to end: a packed `RequestId`, which means nothing to the controller.
        opcode: What to do.
        unit: Disk extent, terminal or port, as `Opcode.IDENTIFY` numbered it.
        offset: Bytes from the start of the unit; 0 where it means nothing.
        length: Bytes of data in or out.
    """

    id: bytes
    opcode: Opcode
    unit: int = 0
    offset: int = 0
    length: int = 0


class Completion(NamedTuple):
    """Outcome of one command.

    Attributes:
        id: The command's identity.
        status: Outcome.
        length: Bytes of data that come back with this entry.
        value: Result of opcodes that give a number.
    """

    id: bytes
    status: Status
    length: int = 0
    value: int = 0


class UnitIdentity(NamedTuple):
    """What IDENTIFY tells about a disk extent, a terminal or a port.

    Attributes:
        size_bytes: Capacity; 0 for a terminal; of a port the longest frame.
        block_bytes: Smallest aligned unit of access; 1 for a terminal or a port.
        read_only: Whether writes are refused.
        serial: Name by which the guest may know the unit, up to 20 ASCII bytes.
    """

    size_bytes: int
    block_bytes: int
    read_only: bool
    serial: str

    def pack(self) -> bytes:
        """Return the 33-byte form: size u64, block u32, read-only u8, serial padded with zeroes to 20."""
        return _IDENTITY.pack(self.size_bytes, self.block_bytes, self.read_only, self.serial.encode("ascii")[:20])

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> UnitIdentity:
        """Decode the 33-byte form.

        Raises:
            DecodeError: Reason ``bad-identity``.
        """
        try:
            size, block, read_only, serial = _IDENTITY.unpack(data)
            return cls(size, block, bool(read_only), serial.rstrip(b"\0").decode("ascii"))
        except (struct.error, UnicodeDecodeError):
            raise DecodeError("bad-identity", f"{len(data)} bytes") from None


_IDENTITY = struct.Struct("<QI?20s")


CommandFields: TypeAlias = tuple[bytes, Opcode, int, int, int]
"""What `Command` names; hot paths leave the names out."""
CompletionFields: TypeAlias = tuple[bytes, Status, int, int]
"""What `Completion` names."""


def pack_commands(commands: Iterable[CommandFields]) -> bytes:
    """Pack commands into the ``commands`` field of `Submit`."""
    return b"".join(starmap(_COMMAND.pack, commands))


def unpack_commands(data: bytes) -> list[Command]:
    """Decode and check the ``commands`` field of a `Submit`.

    Raises:
        DecodeError: Reason ``batch-size``, ``reserved-bits`` or ``bad-opcode``.
    """
    _check_batch(data, COMMAND_BYTES, _COMMAND_ZEROES)
    new, opcodes = tuple.__new__, _OPCODES
    try:
        return [
            new(Command, (id_, opcodes[opcode], unit, offset, length))
            for id_, opcode, unit, offset, length in _COMMAND.iter_unpack(data)
        ]
    except KeyError as error:
        raise DecodeError("bad-opcode", str(error)) from None


def command_data(commands: Iterable[Command], payload: Sequence[Buffer]) -> list[Buffer]:
    """Return the data of each command of `WITH_DATA_OUT`, in their order, out of the payload frames of a `Submit`.

    Raises:
        DecodeError: Reason ``payload-frames``: the frames do not hold what the commands say.
    """
    return split_payload(payload, [command.length for command in commands if command.opcode in WITH_DATA_OUT])


def pack_completions(completions: Iterable[CompletionFields]) -> bytes:
    """Pack completions into the ``completions`` field of `Complete`."""
    return b"".join(starmap(_COMPLETION.pack, completions))


def unpack_completions(data: bytes) -> list[Completion]:
    """Decode and check the ``completions`` field of a `Complete`.

    Raises:
        DecodeError: Reason ``batch-size``, ``reserved-bits`` or ``bad-status``.
    """
    _check_batch(data, COMPLETION_BYTES, _COMPLETION_ZEROES)
    new, statuses = tuple.__new__, _STATUSES
    try:
        return [
            new(Completion, (id_, statuses[status], length, value))
            for id_, status, length, value in _COMPLETION.iter_unpack(data)
        ]
    except KeyError as error:
        raise DecodeError("bad-status", str(error)) from None


def completion_data(completions: Iterable[Completion], payload: Sequence[Buffer]) -> list[Buffer]:
    """Return the data of each completion, empty where its length is 0, out of the payload frames of a `Complete`.

    Raises:
        DecodeError: Reason ``payload-frames``: the frames do not hold what the completions say.
    """
    return split_payload(payload, [completion.length for completion in completions])


def _check_batch(data: bytes, entry_bytes: int, zeroes: tuple[int, ...]) -> None:
    """Refuse a batch that is empty, too large or not whole, or has bits set where none may be."""
    if not data or len(data) % entry_bytes or len(data) > MAX_BATCH * entry_bytes:
        raise DecodeError("batch-size", f"{len(data)} bytes, entries of {entry_bytes}, at most {MAX_BATCH}")
    for at in zeroes:
        if any(data[at::entry_bytes]):
            raise DecodeError("reserved-bits")
