"""One system call as its routine sees it, with its arguments by name; and what the routine returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from iovirt_dist.abi.layouts import Layout
from iovirt_dist.abi.table import MAX_STRING_BYTES
from iovirt_dist.hypervisor.linux.decoder import Plan
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.syscall_messages import EffectKind, SystemCall

if TYPE_CHECKING:
    from iovirt_dist.hypervisor.linux.process import Process

Effect = tuple[EffectKind, int, int, int]


class Reply(NamedTuple):
    """What a routine returns.

    Attributes:
        result: Result of the call; exit status, or minus the signal, where `ends`.
        outputs: What is written, by name of the pointer argument.
        effects: What else changes in the program; see `SystemCallReply.effects`.
        ends: The program ends.
    """

    result: int = 0
    outputs: Mapping[str, Buffer] = {}
    effects: tuple[Effect, ...] = ()
    ends: bool = False


class Request:
    """A system call whose message was checked.

    Args:
        process: Who calls.
        plan: What its arguments are.
        message: As received.
        data: Its payload.
        now_ns: Machine time.

    Attributes:
        process: Who calls.
        plan: What its arguments are.
        number: The trap's number.
        now_ns: Machine time at which the call was made.
        buffers: For each pointer what the message says.
    """

    __slots__ = ("_data", "_registers", "buffers", "now_ns", "number", "plan", "process")

    def __init__(self, process: Process, plan: Plan, message: SystemCall, data: Buffer, now_ns: int) -> None:
        self.process = process
        self.plan = plan
        self.number = message.number
        self.now_ns = now_ns
        self.buffers = message.buffers
        self._registers = message.arguments
        self._data = plan.split(message.buffers, data)

    # Numbers

    def has(self, name: str) -> bool:
        """Whether this architecture's call has an argument of that name."""
        return name in self.plan.places

    def word(self, name: str) -> int:
        """Return an argument as an unsigned word."""
        return self._registers[self.plan.places[name]]

    def unsigned(self, name: str) -> int:
        """Return an argument as C's ``unsigned int``."""
        return self.word(name) & 0xFFFF_FFFF

    def signed(self, name: str) -> int:
        """Return an argument as C's ``int``."""
        return _sign(self.word(name), 32)

    def long(self, name: str) -> int:
        """Return an argument as C's ``long``."""
        return _sign(self.word(name), 8 * self.process.system.layouts.word_bytes)

    def wide(self, name: str) -> int:
        """Return an argument of 64 bits, signed, in one register or two."""
        if name in self.plan.places:
            return _sign(self.word(name), 64)
        return _sign(self.unsigned(f"{name}_high") << 32 | self.unsigned(f"{name}_low"), 64)

    # Memory

    def is_null(self, name: str) -> bool:
        """Whether a pointer is NULL."""
        return self.word(name) == 0

    def room(self, name: str) -> int:
        """Return how many bytes may be written at a pointer.

        Raises:
            CallError: EFAULT: none of those that the call was to write.
        """
        length = self.buffers[self.plan.pointers.index(name)]
        if length >= 0:
            return length
        if self._is_empty(name):
            return 0
        raise CallError(Errno.EFAULT)

    def data(self, name: str) -> memoryview:
        """Return what is read at a pointer.

        Raises:
            CallError: EFAULT: it cannot be read.
        """
        data = self._data.get(name)
        if data is not None:
            return data
        if self._is_empty(name):
            return memoryview(b"")
        raise CallError(Errno.EFAULT)

    def _is_empty(self, name: str) -> bool:
        """Whether another argument says that there is nothing behind a pointer, so that nobody looks."""
        length = self.plan.arguments[self.plan.places[name]].length
        return length >= 0 and self._registers[length] == 0

    def structure(self, name: str, layout: Layout) -> dict[str, int]:
        """Return the fields of a structure of numbers that is read at a pointer.

        Raises:
            CallError: EFAULT.
        """
        return layout.unpack(self.data(name))

    def text(self, name: str) -> str:
        """Return a string; bytes that are no UTF-8 are kept as surrogates.

        Raises:
            CallError: EFAULT, or ENAMETOOLONG for one of PATH_MAX bytes or more.
        """
        data = self.data(name)
        if len(data) >= MAX_STRING_BYTES:
            raise CallError(Errno.ENAMETOOLONG)
        return bytes(data).decode("utf-8", "surrogateescape")


def _sign(value: int, bits: int) -> int:
    """Read the low bits of a word as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
