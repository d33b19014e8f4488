"""Packed command and completion entries of the controller protocol.

A batch is one binary field of fixed-size little-endian entries, so sixty-four requests cost one msgpack field
instead of sixty-four nested lists. The shape follows NVMe's submission and completion queue entries (NVM Express
Base Specification 2.0, sections 3.3.3.1 and 3.3.3.2): command id, opcode, namespace, range; then id, status, length.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId

_COMMAND = struct.Struct("<IIQBBHIQQ")
_COMPLETION = struct.Struct("<IIQHHIQ")
COMMAND_BYTES = _COMMAND.size
"""40: guest u32, queue u32, sequence u64, opcode u8, flags u8, zero u16, unit u32, offset u64, length u64."""
COMPLETION_BYTES = _COMPLETION.size
"""32: guest u32, queue u32, sequence u64, status u16, zero u16, data length u32, value u64."""
MAX_BATCH = 1024
MAX_DATA_BYTES = 4 << 20
"""Most data that one command moves."""


class Opcode(enum.IntEnum):
    """What a controller is asked to do, over all device classes."""

    IDENTIFY = 1
    """Payload: the unit's name. Completion: value = unit number, payload = `UnitIdentity` bytes."""
    READ = 2
    WRITE = 3
    FLUSH = 4
    DISCARD = 5
    CONSOLE_TRANSMIT = 16
    """Payload: bytes for the terminal."""
    CONSOLE_RECEIVE = 17
    """Completes when the terminal has input; at most `length` bytes come back."""
    ENTROPY_GET = 24
    """Completes with random bytes: at least one, at most `length`."""


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


WITH_DATA_OUT = frozenset({Opcode.IDENTIFY, Opcode.WRITE, Opcode.CONSOLE_TRANSMIT})
_OPCODES = {int(opcode): opcode for opcode in Opcode}
_STATUSES = {int(status): status for status in Status}


class Command(NamedTuple):
    """One request to a controller.

    Attributes:
        id: Identity of the request, end to end.
        opcode: What to do.
        unit: Disk extent or terminal, as `Opcode.IDENTIFY` numbered it.
        offset: Bytes from the start of the unit; 0 where it means nothing.
        length: Bytes of data in or out.
    """

    id: RequestId
    opcode: Opcode
    unit: int = 0
    offset: int = 0
    length: int = 0


class Completion(NamedTuple):
    """Outcome of one command.

    Attributes:
        id: The command's identity.
        status: Outcome.
        length: Bytes of data that come back as this entry's payload frame; 0 for no frame.
        value: Result of opcodes that give a number.
    """

    id: RequestId
    status: Status
    length: int = 0
    value: int = 0


class UnitIdentity(NamedTuple):
    """What IDENTIFY tells about a disk extent or a terminal.

    Attributes:
        size_bytes: Capacity; 0 for a terminal.
        block_bytes: Smallest aligned unit of access; 1 for a terminal.
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


def pack_commands(commands: Iterable[Command]) -> bytes:
    """Pack commands into the ``commands`` field of `Submit`."""
    pack = _COMMAND.pack
    return b"".join(pack(*c.id, c.opcode, 0, 0, c.unit, c.offset, c.length) for c in commands)


def unpack_commands(data: bytes, payload: int) -> list[Command]:
    """Decode and check a `Submit` batch.

    Args:
        data: The ``commands`` field.
        payload: Number of payload frames that came with it; must equal the commands that carry data out.

    Raises:
        DecodeError: Reason ``batch-size``, ``payload-count`` or ``reserved-bits``. An unknown opcode is no decode
            error: see `Opcode`; it raises reason ``bad-opcode``.
    """
    _check_batch(data, COMMAND_BYTES)
    commands = []
    with_data = 0
    for guest, queue, sequence, opcode, flags, zero, unit, offset, length in _COMMAND.iter_unpack(data):
        known = _OPCODES.get(opcode)
        if known is None:
            raise DecodeError("bad-opcode", str(opcode))
        if flags or zero:
            raise DecodeError("reserved-bits")
        with_data += known in WITH_DATA_OUT
        commands.append(Command(RequestId(guest, queue, sequence), known, unit, offset, length))
    if with_data != payload:
        raise DecodeError("payload-count", f"{with_data} commands with data, {payload} frames")
    return commands


def pack_completions(completions: Iterable[Completion]) -> bytes:
    """Pack completions into the ``completions`` field of `Complete`."""
    pack = _COMPLETION.pack
    return b"".join(pack(*c.id, c.status, 0, c.length, c.value) for c in completions)


def unpack_completions(data: bytes, payload: list[int]) -> list[Completion]:
    """Decode and check a `Complete` batch.

    Args:
        data: The ``completions`` field.
        payload: Length of each payload frame; must equal the nonzero lengths of the entries, in order.

    Raises:
        DecodeError: Reason ``batch-size``, ``payload-count``, ``reserved-bits`` or ``bad-status``.
    """
    _check_batch(data, COMPLETION_BYTES)
    completions = []
    for guest, queue, sequence, status, zero, length, value in _COMPLETION.iter_unpack(data):
        known = _STATUSES.get(status)
        if known is None:
            raise DecodeError("bad-status", str(status))
        if zero:
            raise DecodeError("reserved-bits")
        completions.append(Completion(RequestId(guest, queue, sequence), known, length, value))
    if [c.length for c in completions if c.length] != payload:
        raise DecodeError("payload-count", "frames do not match the entries' lengths")
    return completions


def _check_batch(data: bytes, entry_bytes: int) -> None:
    """Refuse a batch that is empty, too large or not whole."""
    if not data or len(data) % entry_bytes or len(data) > MAX_BATCH * entry_bytes:
        raise DecodeError("batch-size", f"{len(data)} bytes, entries of {entry_bytes}, at most {MAX_BATCH}")
