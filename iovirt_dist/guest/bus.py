"""The one door between a virtual CPU and everything outside its RAM.

A vCPU runs in its own thread and calls the bus from inside the trapping instruction; the call returns when the
hypervisor has answered. A test double answers from local devices.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.syscall_messages import Disposition, EffectKind


class IoPrivilege(NamedTuple):
    """What the hypervisor needs in order to decide whether an I/O instruction may complete.

    Attributes:
        level: x86 CPL (0..3) or RISC-V privilege (0 U, 1 S, 3 M).
        iopl: EFLAGS.IOPL; 0 on RISC-V and, on x86, meaningless in real mode, where `level` is 0.
        permitted: Whether the TSS I/O permission bitmap allows every port touched (Intel SDM volume 1,
            section 19.5.2); False without such a bitmap.
    """

    level: int
    iopl: int = 0
    permitted: bool = False


class SystemCallOutcome(NamedTuple):
    """What became of a system call that the hypervisor took; see `wire.syscall_messages.SystemCallReply`.

    Attributes:
        disposition: Done, left to the guest's own kernel, or the end of the program.
        result: Result, negative errno for an error; exit status with EXIT.
        outputs: Bytes to be written for each pointer argument, in order; 0 for none.
        data: Those bytes, one argument after the other. The peer may have sent fewer than `outputs` says.
        effects: What else changes, before the outputs are written: kind and three words each.
    """

    disposition: Disposition
    result: int
    outputs: tuple[int, ...]
    data: Buffer
    effects: tuple[tuple[EffectKind, int, int, int], ...]


class Bus(Protocol):
    """What a vCPU may ask of the outside. Every method may be called from the vCPU's thread only.

    Guest memory changes only inside these methods (DMA of armed queues) and between two runs of the CPU.

    `port_in`, `port_out`, `load` raise `iovirt_dist.errors.GuestFault` when the instruction must fault in the
    guest, and `iovirt_dist.guest.bus.BusClosedError` when the process is stopping.
    """

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """IN or `rep ins`: returns ``width * count`` bytes, little-endian elements in the order of the reads."""
        ...

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """OUT or `rep outs` of ``len(data) // width`` elements; returns when the device has taken them."""
        ...

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Load from a guest physical address that is not RAM."""
        ...

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Posted store to a guest physical address that is not RAM; returns at once, order is kept.

        A store to the notify register of an armed queue is a doorbell: the queue's ring is gathered before this
        returns.
        """
        ...

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """Name of the ABI and numbers of the system calls that the hypervisor takes, an empty set standing for all.

        None: it takes none. Costs no message; may change while the CPU runs.
        """
        ...

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Tell that a program is loaded and will now run; fields as in `ProgramStarted`. Returns at once.

        Raises:
            BusClosedError: The process is stopping.
        """
        ...

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """Hand a system call to the hypervisor and wait for its outcome.

        Args:
            process: Who calls: the address space, or 1 for the one process of a program guest.
            call: The call's number.
            arguments: Argument registers in order, unsigned.
            buffers: For each pointer argument its bytes, `BAD_POINTER` or `NULL_POINTER`.
            data: What the call reads from memory, one argument after the other.

        Raises:
            BusClosedError: The process is stopping, or power changed.
        """
        ...

    def acknowledge_interrupt(self) -> int:
        """The x86 INTA cycle: the vector that the interrupt controller presents now."""
        ...

    def lines(self) -> int:
        """Interrupt inputs asserted now, bit per line (x86: bit 0 INTR; RISC-V: as in ``mip``). Costs no message."""
        ...


class BusClosedError(Exception):
    """The process is stopping; the vCPU must leave its loop without finishing the instruction."""


class WithoutSystemCalls:
    """The part of a `Bus` that concerns system calls, where nobody takes any."""

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """None are taken."""
        return None

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Nobody wants to know."""

    def system_call(
        self,
        process: int,  # noqa: ARG002 - the Bus protocol fixes the signature
        call: int,  # noqa: ARG002 - as above
        arguments: tuple[int, ...],  # noqa: ARG002 - as above
        buffers: tuple[int, ...],  # noqa: ARG002 - as above
        data: bytes,  # noqa: ARG002 - as above
    ) -> SystemCallOutcome:
        """Whatever it is, it is the guest kernel's."""
        return SystemCallOutcome(Disposition.PASS, 0, (), b"", ())
