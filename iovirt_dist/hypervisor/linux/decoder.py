"""Messages about system calls, checked against the table of an ABI: registers, buffers and payload must agree."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.abi.table import MAX_BUFFER_BYTES, MAX_STRING_BYTES, POINTERS, READ, Abi, Argument, ArgumentKind
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.syscall_messages import BAD_POINTER, SystemCall

_NOTHING: dict[str, memoryview] = {}
_VECTORS = frozenset({ArgumentKind.VECTOR_IN, ArgumentKind.VECTOR_OUT})


class Plan(NamedTuple):
    """What the arguments of a call are, prepared for use.

    Attributes:
        name: The call's name.
        arguments: In register order.
        places: Register of each argument, by name.
        pointers: Names of the arguments that are pointers, in order.
        read: For each of them whether the call reads what is there.
        checks: For each of them its register, and what it is.
    """

    name: str
    arguments: tuple[Argument, ...] = ()
    places: dict[str, int] = {}  # noqa: RUF012 - a default that nothing changes
    pointers: tuple[str, ...] = ()
    read: tuple[bool, ...] = ()
    checks: tuple[tuple[int, Argument], ...] = ()

    def split(self, buffers: tuple[int, ...], data: Buffer) -> dict[str, memoryview]:
        """Return what is read at each pointer, of those where that is possible, from a checked message's payload."""
        if not data and not any(self.read):
            return _NOTHING
        view = memoryview(data)
        pieces: dict[str, memoryview] = {}
        at = 0
        for name, read, length in zip(self.pointers, self.read, buffers, strict=True):
            if read and length >= 0:
                pieces[name] = view[at : at + length]
                at += length
        return pieces


class CallDecoder:
    """Checks the messages of one ABI.

    Args:
        abi: Its table.
    """

    def __init__(self, abi: Abi) -> None:
        self._abi = abi
        self._plans = {call.number: _plan(call.name, call.arguments) for call in abi.calls.values()}
        self._variants = {
            (call.number, code): _plan(call.name, arguments)
            for call in abi.calls.values()
            for code, arguments in call.variants.items()
        }
        self._word_bits = 8 * abi.word_bytes

    def decode(self, message: SystemCall, payload_bytes: int) -> Plan | None:
        """Return what the arguments are; None if the message contradicts the table.

        Args:
            message: The call.
            payload_bytes: Length of its payload.
        """
        registers = message.arguments
        call = self._abi.calls.get(message.call)
        if max(registers, default=0) >> self._word_bits:
            return None
        if call is None:
            undeclared = not message.buffers and not payload_bytes
            return Plan(self._abi.call_name(message.call)) if undeclared else None
        if len(registers) < len(call.arguments):
            return None
        plan = self._plans[message.call]
        if call.selector >= 0:
            plan = self._variants.get((message.call, registers[call.selector] & 0xFFFF_FFFF), plan)
        return plan if _agrees(plan, message, payload_bytes) else None


@cache
def decoder_of(abi: str) -> CallDecoder:
    """Return the decoder of an ABI by its name; it has no state, so that one serves all guests."""
    return CallDecoder(ABIS[abi])


def _plan(name: str, arguments: tuple[Argument, ...]) -> Plan:
    pointers = [argument for argument in arguments if argument.kind in POINTERS]
    return Plan(
        name,
        arguments,
        {argument.name: index for index, argument in enumerate(arguments)},
        tuple(argument.name for argument in pointers),
        tuple(argument.kind in READ for argument in pointers),
        tuple((index, argument) for index, argument in enumerate(arguments) if argument.kind in POINTERS),
    )


def _agrees(plan: Plan, message: SystemCall, payload_bytes: int) -> bool:
    """Whether the buffers are those of the arguments, and the payload is what they say."""
    buffers, registers = message.buffers, message.arguments
    if len(buffers) != len(plan.pointers) or len(registers) < len(plan.arguments):
        return False
    for (index, argument), read, length in zip(plan.checks, plan.read, buffers, strict=True):
        if not _fits(argument, registers[index], length, registers):
            return False
        if read and length > 0:
            payload_bytes -= length
    return payload_bytes == 0


def _fits(argument: Argument, register: int, length: int, registers: tuple[int, ...]) -> bool:
    """Whether an entry of ``buffers`` is possible for its argument."""
    if length < 0:
        return length == BAD_POINTER or register == 0
    if argument.kind is ArgumentKind.STRING_IN:
        return length <= MAX_STRING_BYTES
    if argument.kind in _VECTORS:
        return length <= MAX_BUFFER_BYTES
    extent = argument.extent(registers)
    return length == extent if argument.length < 0 else length <= extent
