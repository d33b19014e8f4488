"""Messages about intercepted system calls (guest protocol): the system-call level.

The guest's process knows the ABI's table (`iovirt_dist.abi`): which arguments are pointers, in which direction, how
long. What a call reads travels with it; what it writes comes back with its reply and is scattered there. Pointers are
checked where the memory is, so the hypervisor never sees a bad one, only that it was bad.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from iovirt_dist.wire.fields import U32, U63, U64, Name, Text

BAD_POINTER = -1
"""`SystemCall.buffers`: the memory is not the program's, or not to be accessed in this direction."""
NULL_POINTER = -2
"""`SystemCall.buffers`: the pointer is 0; whether that is allowed is the call's affair."""

_Word = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Disposition(enum.IntEnum):
    """What becomes of an intercepted call."""

    DONE = 1
    """The hypervisor has carried it out; `SystemCallReply.result` is its result."""
    PASS = 2
    """It is the guest kernel's: deliver it there. Only for guests that have one."""
    EXIT = 3
    """The program ends with `SystemCallReply.result` as its exit status, or by the signal -result."""


class EffectKind(enum.IntEnum):
    """What a reply changes in the program besides its buffers."""

    MAP = 1
    """Map zeroed memory: address, length, protection (1 read, 2 write, 4 execute)."""
    UNMAP = 2
    """Unmap: address, length, 0."""
    PROTECT = 3
    """Change protection: address, length, protection."""
    THREAD_POINTER = 4
    """Set the architecture's thread pointer: value (x86-64 FS base, RISC-V tp); i386: base of the TLS segment."""


class InterceptCalls(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=40):
    """Which system calls of the guest's programs the hypervisor takes; hypervisor to guest, before anything else.

    Attributes:
        abi: Name of the ABI.
        calls: Numbers of the calls; empty for every call.
    """

    abi: Name
    calls: Annotated[tuple[U32, ...], Meta(max_length=1024)] = ()


class ProgramStarted(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=41):
    """A program is loaded and will now run; guest to hypervisor.

    Attributes:
        process: Identity of the process, as in `SystemCall`.
        name: The program's name, for people.
        break_start: Address where its heap begins (brk).
        map_top: Address below which memory may be mapped, downwards.
    """

    process: U64
    name: Text
    break_start: U64
    map_top: U64


class SystemCall(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=42):
    """A program's system call; guest to hypervisor. The program waits for the reply.

    Payload: at most one frame, what the call reads from memory: the buffers of all IN arguments one after the other.

    Attributes:
        number: The guest's count of traps, its causal id.
        process: Who calls: the address space (x86: CR3), or 1 for the one process of a program guest.
        call: The call's number.
        arguments: Argument registers in order, as unsigned words.
        buffers: For each argument that the table declares as a pointer, in order: the bytes that are read or may be
            written there, or `BAD_POINTER`, or `NULL_POINTER`. A string's length excludes its end.
    """

    number: U63
    process: U64
    call: U32
    arguments: Annotated[tuple[U64, ...], Meta(max_length=6)]
    buffers: Annotated[tuple[Annotated[int, Meta(ge=-2, le=1 << 30)], ...], Meta(max_length=6)] = ()


class SystemCallReply(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=43):
    """Completion of a system call; hypervisor to guest.

    Payload: what the call writes to memory: the data of `outputs` one after the other, in any number of frames.

    Attributes:
        number: The call's trap number.
        disposition: What becomes of it.
        result: Result, negative errno for an error; exit status with EXIT.
        outputs: Bytes written for each pointer argument, in order, as many entries as the call's `buffers`; 0 for none.
        effects: What else changes: kind and three words each, applied in order before the outputs.
        lines: Interrupt inputs that changed, as in `TrapReply`.
    """

    number: U63
    disposition: Disposition
    result: _Word = 0
    outputs: Annotated[tuple[U32, ...], Meta(max_length=6)] = ()
    effects: Annotated[tuple[tuple[EffectKind, U64, U64, U64], ...], Meta(max_length=64)] = ()
    lines: Annotated[tuple[U63, ...], Meta(max_length=16)] = ()
