"""What one row of the instruction table says.

Terms of Popek and Goldberg ("Formal Requirements for Virtualizable Third Generation Architectures", 1974): an
instruction is *sensitive* if it reads or changes what a hypervisor must keep to itself, devices among it, or behaves
differently by privilege; *privileged* if it traps in user mode; *innocuous* if it is not sensitive. A sensitive
instruction that is not privileged is *critical*: it must be found and patched, since it never announces itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from iovirt_dist.wire.messages import TrapKind


class Kind(enum.Enum):
    """Popek and Goldberg's classes."""

    PRIVILEGED = "privileged"
    """Sensitive, and traps by itself in user mode; an access is sensitive by its address."""
    CRITICAL = "critical"
    """Sensitive, and does not trap in user mode."""
    INNOCUOUS = "innocuous"
    """Neither."""
    CALL = "call"
    """Traps at every level, which is its purpose: the guest's own way into its system mode."""


class Effect(enum.Enum):
    """What became of an instruction."""

    DONE = "done"
    """It did what its level 0 or M mode would see."""
    IGNORED = "ignored"
    """It completed without a trap and without its effect."""
    HALTED = "halted"
    """The virtual CPU waits for an interrupt."""
    FAULTED = "faulted"
    """The guest took an exception in its own system mode."""


class Grant(enum.Enum):
    """How a guest OS lets its user mode use a device or change an interrupt flag."""

    IOPL = "IOPL 3"
    BITMAP = "I/O bitmap"
    USER_PAGE = "user page"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happens at one privilege level.

    Attributes:
        effect: What became of the instruction.
        traps: Messages that reach the hypervisor, in their order.
        fault: x86 vector or RISC-V cause that the guest takes, -1 for none.
    """

    effect: Effect = Effect.DONE
    traps: tuple[TrapKind, ...] = ()
    fault: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One row.

    Attributes:
        mnemonic: In the syntax of the architecture's manual.
        code: Encoding; operands as the mnemonic says.
        before: Code that prepares what the instruction needs; it traps at no level.
        touches: The device or the state concerned.
        witness: Register, flag or ``memory`` in which a completed instruction shows; empty for none.
        kind: Its class.
        is_io: Whether it signals a device's controller.
        user: At CPL 3 or in U mode, as an OS leaves it.
        system: At CPL 0 or in S mode.
        machine: In M mode; None on x86, which has none.
        grants: What makes `granted` happen; each alone suffices.
        granted: In user mode after any of `grants`; None without.
    """

    mnemonic: str
    code: bytes
    before: bytes = b""
    touches: str
    witness: str = ""
    kind: Kind
    is_io: bool = False
    user: Outcome
    system: Outcome
    machine: Outcome | None = None
    grants: tuple[Grant, ...] = ()
    granted: Outcome | None = None
