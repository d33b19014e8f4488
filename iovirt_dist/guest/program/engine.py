"""The seam to a CPU in user mode: what a program guest needs of one.

An engine has RAM, page tables and privilege levels, and runs the program at the lowest; whatever a kernel would be
called for ends `run`. `guest.unicorn.user_*` are the engines.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, Protocol

from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.virtio.memory import GuestMemory

SIGILL: Final = 4
SIGTRAP: Final = 5
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGSEGV: Final = 11


class UserStopKind(enum.Enum):
    """Why a program stopped."""

    KICKED = "kicked"
    SYSTEM_CALL = "system call"
    """`UserEngine.call` says which; the PC is behind the instruction."""
    FAULT = "fault"
    """What a kernel answers with a signal; nothing of the instruction took effect that the program could see."""


class UserStop(NamedTuple):
    """Why and where a program stopped.

    Attributes:
        kind: The reason.
        signal: For FAULT: number of the signal.
        pc: For FAULT: the instruction.
        cause: For FAULT: what happened, in words.
    """

    kind: UserStopKind
    signal: int = 0
    pc: int = 0
    cause: str = ""


class UserEngine(Protocol):
    """A CPU that runs one program."""

    @property
    def memory(self) -> GuestMemory:
        """Physical RAM."""
        ...

    def reset(self) -> AddressSpace:
        """Forget everything, and return the empty address space of the next program."""
        ...

    def start(self, pc: int, stack_pointer: int) -> None:
        """Set all registers for a program's first instruction; its address space must be filled."""
        ...

    def run(self) -> UserStop:
        """Execute until something must be done."""
        ...

    def call(self) -> tuple[int, tuple[int, ...]]:
        """After SYSTEM_CALL: the call's number and its six argument registers, unsigned words."""
        ...

    def finish_call(self, result: int) -> None:
        """Set the result of a system call, negative errno for an error, and what else the call changes."""
        ...

    def set_thread_pointer(self, value: int) -> None:
        """Set the thread pointer, where a system call does that."""
        ...

    def kick(self) -> None:
        """Make `run` return with KICKED soon; from any thread; sticky until a `run` has returned so."""
        ...
