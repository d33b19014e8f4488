"""What a system call reads from its program's memory, gathered; what it writes there, scattered.

The table of the ABI (`iovirt_dist.abi.table`) says which arguments are pointers, in which direction and how long. A
pointer is followed no further than the program itself could follow it: a range that starts where the program may not
access is `BAD_POINTER`; one that ends there is cut, and the call then transfers less, as Linux does. Only a structure
of fixed size is all or nothing.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

from iovirt_dist.abi.table import (
    MAX_BUFFER_BYTES,
    MAX_STRING_BYTES,
    MAX_VECTOR,
    POINTERS,
    READ,
    WRITTEN,
    Abi,
    Argument,
    ArgumentKind,
)
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.syscall_messages import BAD_POINTER, NULL_POINTER

_STRING_STEP: Final = 256
_VECTORS: Final = frozenset({ArgumentKind.VECTOR_IN, ArgumentKind.VECTOR_OUT})


class UserMemory(Protocol):
    """The memory of one program, as the program itself may access it. Any address may be asked for."""

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """How many of `length` bytes from `address` on the program may read or write: 0 to `length`."""
        ...

    def read(self, address: int, length: int) -> bytes:
        """Read a range that is accessible."""
        ...

    def write(self, address: int, data: Buffer) -> None:
        """Write what the program may write; the rest from the first byte on that it may not is dropped."""
        ...


class Span(NamedTuple):
    """A range of the program's memory."""

    address: int
    length: int


class Gathered(NamedTuple):
    """A system call that is ready to travel, and where its outputs go.

    Attributes:
        arguments: Argument registers.
        buffers: As in `SystemCall.buffers`.
        data: As the payload of `SystemCall`.
        targets: For each of `buffers`: what the call may write, in order; empty for what it only reads.
    """

    arguments: tuple[int, ...]
    buffers: tuple[int, ...] = ()
    data: bytes = b""
    targets: tuple[tuple[Span, ...], ...] = ()


class _Pointer(NamedTuple):
    register: int
    argument: Argument


_NOWHERE: Final = (BAD_POINTER, b"", ())
_Piece = tuple[int, bytes, tuple[Span, ...]]  # entry of `buffers`, data, targets


class Marshaller:
    """Gathers and scatters for the calls of one ABI.

    Args:
        abi: Its table.
    """

    def __init__(self, abi: Abi) -> None:
        self._word = struct.Struct("<QQ" if abi.word_bytes == 8 else "<II")
        self._calls = abi.calls
        self._plans = {call.number: _pointers(call.arguments) for call in abi.calls.values() if call.selector < 0}
        self._address_end = 1 << 8 * abi.word_bytes

    def gather(self, number: int, arguments: tuple[int, ...], memory: UserMemory) -> Gathered:
        """Follow the pointers of a call.

        Args:
            number: The call's number; of one that the table does not declare only the arguments travel.
            arguments: All argument registers, unsigned.
            memory: The caller's memory.
        """
        plan = self._plans.get(number)
        if plan is None and number in self._calls:
            plan = _pointers(self._calls[number].signature(arguments))
        if not plan:
            return Gathered(arguments)
        pieces = [self._follow(pointer, arguments, memory) for pointer in plan]
        data = b"".join([piece[1] for piece in pieces]) if len(pieces) > 1 else pieces[0][1]
        return Gathered(arguments, tuple([p[0] for p in pieces]), data, tuple([p[2] for p in pieces]))

    def _follow(self, pointer: _Pointer, arguments: tuple[int, ...], memory: UserMemory) -> _Piece:
        argument = pointer.argument
        address = arguments[pointer.register]
        if address == 0:
            return NULL_POINTER, b"", ()
        if argument.kind is ArgumentKind.STRING_IN:
            return _string(memory, address)
        if argument.kind in _VECTORS:
            return self._vector(memory, address, argument, arguments[argument.length])
        wanted = argument.extent(arguments)
        length = _reachable(memory, argument.kind, Span(address, min(wanted, self._address_end - address)))
        if wanted and (not length or (argument.length < 0 and length < wanted)):
            return _NOWHERE
        data = memory.read(address, length) if argument.kind in READ and length else b""
        return length, data, (Span(address, length),) if length and argument.kind in WRITTEN else ()

    def _vector(self, memory: UserMemory, address: int, argument: Argument, count: int) -> _Piece:
        """Flatten an array of ``struct iovec`` (base, length); more than IOV_MAX entries are the call's error."""
        if not 0 < count <= MAX_VECTOR:
            return 0, b"", ()
        size = count * self._word.size
        if memory.accessible(address, size, write=False) < size:
            return _NOWHERE
        spans: list[Span] = []
        room = MAX_BUFFER_BYTES
        for base, length in self._word.iter_unpack(memory.read(address, size)):
            wanted = min(length, room)
            span = Span(base, _reachable(memory, argument.kind, Span(base, wanted)))
            if span.length:
                spans.append(span)
                room -= span.length
            if span.length < wanted:
                if not spans:
                    return _NOWHERE
                break
        total = MAX_BUFFER_BYTES - room
        if argument.kind is ArgumentKind.VECTOR_OUT:
            return total, b"", tuple(spans)
        return total, b"".join([memory.read(*span) for span in spans]), ()


def scatter(gathered: Gathered, outputs: tuple[int, ...], data: Buffer, memory: UserMemory) -> None:
    """Write what a call returned.

    The hypervisor is a peer that may be wrong: what is longer than its target is cut, and nothing is written outside of
    the targets, or where the program may not write by now.

    Args:
        gathered: The call.
        outputs: Bytes for each of `Gathered.buffers`.
        data: The bytes, one output after the other.
        memory: The caller's memory.
    """
    view = memoryview(data)
    at = 0
    for length, spans in zip(outputs, gathered.targets, strict=False):
        output = view[at : at + length]
        at += length
        for address, room in spans:
            if not output:
                break
            memory.write(address, output[:room])
            output = output[room:]


def _pointers(arguments: tuple[Argument, ...]) -> tuple[_Pointer, ...]:
    return tuple(_Pointer(index, argument) for index, argument in enumerate(arguments) if argument.kind in POINTERS)


def _reachable(memory: UserMemory, kind: ArgumentKind, span: Span) -> int:
    """How much of a range the call may access in its direction, or in both."""
    length = span.length
    if kind in READ:
        length = memory.accessible(span.address, length, write=False)
    if kind in WRITTEN:
        length = memory.accessible(span.address, length, write=True)
    return length


def _string(memory: UserMemory, address: int) -> _Piece:
    """Read a string up to its zero byte; one that is too long travels as `MAX_STRING_BYTES` bytes."""
    parts: list[bytes] = []
    total = 0
    while total < MAX_STRING_BYTES:
        step = min(_STRING_STEP, MAX_STRING_BYTES - total)
        length = memory.accessible(address + total, step, write=False)
        part = memory.read(address + total, length) if length else b""
        end = part.find(b"\0")
        if end >= 0:
            parts.append(part[:end])
            break
        if length < step:
            return _NOWHERE
        parts.append(part)
        total += step
    text = b"".join(parts)
    return len(text), text, ()
