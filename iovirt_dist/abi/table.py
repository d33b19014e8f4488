"""What a table of system calls says: of each call its number, name and arguments, of each argument its meaning.

    Call(3, "read", (fd("fd"), buffer_out("buffer", length=2), size("count")))

says that call 3 takes a file descriptor, the address of a buffer that the call writes, whose length in bytes is
argument 2, and that length.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class ArgumentKind(enum.Enum):
    """What one argument is."""

    VALUE = "value"
    """A number: flags, a size, an address that the call does not access, anything else without memory behind it."""
    FD = "fd"
    """A file descriptor."""
    STRING_IN = "string"
    """Address of a string that the call reads up to its zero byte, `MAX_STRING_BYTES` at most."""
    BUFFER_IN = "in"
    """Address of memory that the call reads."""
    BUFFER_OUT = "out"
    """Address of memory that the call writes."""
    BUFFER_IN_OUT = "in-out"
    """Address of memory that the call reads and then writes."""
    VECTOR_IN = "vector-in"
    """Address of an array of ``struct iovec`` (address and length words) whose buffers the call reads, in order."""
    VECTOR_OUT = "vector-out"
    """The same where the call writes the buffers, in order."""


POINTERS = frozenset(ArgumentKind) - {ArgumentKind.VALUE, ArgumentKind.FD}
READ = frozenset({ArgumentKind.STRING_IN, ArgumentKind.BUFFER_IN, ArgumentKind.BUFFER_IN_OUT, ArgumentKind.VECTOR_IN})
"""Kinds whose memory travels with the call."""
WRITTEN = frozenset({ArgumentKind.BUFFER_OUT, ArgumentKind.BUFFER_IN_OUT, ArgumentKind.VECTOR_OUT})
"""Kinds whose memory comes back with the reply."""

MAX_STRING_BYTES = 4096
"""PATH_MAX of Linux; a longer string is ENAMETOOLONG, which the guest's process tells by sending all of these."""
MAX_BUFFER_BYTES = 4 << 20
"""A longer buffer is cut to this length before the call is made, which then transfers less, as Linux does at 2 GiB."""
MAX_VECTOR = 1024
"""IOV_MAX."""


class Argument(NamedTuple):
    """One argument.

    Attributes:
        name: As in the manual page.
        kind: What it is.
        bytes: Pointers to a fixed structure: its size; else 0.
        length: Pointers whose length is another argument: that argument's index; else -1. For vectors the index of the
            argument that counts the entries. With `bytes`, too, that argument counts structures of that size.
    """

    name: str
    kind: ArgumentKind = ArgumentKind.VALUE
    bytes: int = 0
    length: int = -1

    def extent(self, registers: Sequence[int]) -> int:
        """Return the bytes behind this pointer, cut to `MAX_BUFFER_BYTES`; strings and vectors are measured in memory.

        Args:
            registers: Argument registers of the call, as unsigned words.
        """
        if self.length < 0:
            return self.bytes
        return min(registers[self.length] * (self.bytes or 1), MAX_BUFFER_BYTES)


def value(name: str) -> Argument:
    """A number."""
    return Argument(name)


def fd(name: str = "fd") -> Argument:
    """A file descriptor."""
    return Argument(name, ArgumentKind.FD)


def string(name: str) -> Argument:
    """A string that the call reads."""
    return Argument(name, ArgumentKind.STRING_IN)


def buffer_in(name: str, bytes: int = 0, length: int = -1) -> Argument:  # noqa: A002 - the field's name
    """Memory that the call reads."""
    return Argument(name, ArgumentKind.BUFFER_IN, bytes, length)


def buffer_out(name: str, bytes: int = 0, length: int = -1) -> Argument:  # noqa: A002 - the field's name
    """Memory that the call writes."""
    return Argument(name, ArgumentKind.BUFFER_OUT, bytes, length)


def buffer_in_out(name: str, bytes: int = 0, length: int = -1) -> Argument:  # noqa: A002 - the field's name
    """Memory that the call reads and writes."""
    return Argument(name, ArgumentKind.BUFFER_IN_OUT, bytes, length)


def vector_in(name: str, length: int) -> Argument:
    """Buffers that the call reads."""
    return Argument(name, ArgumentKind.VECTOR_IN, 0, length)


def vector_out(name: str, length: int) -> Argument:
    """Buffers that the call writes."""
    return Argument(name, ArgumentKind.VECTOR_OUT, 0, length)


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    Attributes:
        number: In the ABI's numbering.
        name: As in the manual page.
        arguments: In register order; at most six.
        selector: Index of an argument whose value decides what the others mean, as with ioctl; -1 for none.
        variants: The arguments for values of the selector that are known; for others `arguments` holds.
    """

    number: int
    name: str
    arguments: tuple[Argument, ...] = ()
    selector: int = -1
    variants: Mapping[int, tuple[Argument, ...]] = field(default_factory=dict)

    def signature(self, registers: Sequence[int]) -> tuple[Argument, ...]:
        """Return the arguments of a call with these argument registers; both ends must use this."""
        if self.selector < 0:
            return self.arguments
        return self.variants.get(registers[self.selector] & 0xFFFF_FFFF, self.arguments)


MAX_NUMBER = 1024
"""Numbers below this that no table has are names of their own; no ABI here has half as many calls."""
OTHER = "other"
"""Name of all others: who makes up numbers does not make up names, which are counted."""


@dataclass(frozen=True, slots=True)
class Abi:
    """The system-call interface of one OS on one architecture.

    Attributes:
        name: ``linux_i386`` and so on, as in the topology.
        word_bytes: Size of a pointer.
        machine: ELF ``e_machine`` of its programs.
        user_end: First address behind what a program may use (Linux TASK_SIZE), page-aligned.
        calls: Declared calls by number.
        names: Names of other calls that exist, by number, so that an unknown one is counted by its name.
    """

    name: str
    word_bytes: int
    machine: int
    user_end: int
    calls: Mapping[int, Call]
    names: Mapping[int, str]

    def call_name(self, number: int) -> str:
        """Return the name of a call; where the table has none, its number as text, or `OTHER` from `MAX_NUMBER` on."""
        call = self.calls.get(number)
        if call:
            return call.name
        return self.names.get(number) or (str(number) if number < MAX_NUMBER else OTHER)
