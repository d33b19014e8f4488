"""The one door between a virtual CPU and everything outside its RAM.

A vCPU runs in its own thread and calls the bus from inside the trapping instruction; the call returns when the
hypervisor has answered. A test double answers from local devices.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


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


class Bus(Protocol):
    """What a vCPU may ask of the outside. Every method may be called from the vCPU's thread only.

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
        """Posted store to a guest physical address that is not RAM; returns at once, order is kept."""
        ...

    def acknowledge_interrupt(self) -> int:
        """The x86 INTA cycle: the vector that the interrupt controller presents now."""
        ...

    def lines(self) -> int:
        """Interrupt inputs asserted now, bit per line (x86: bit 0 INTR; RISC-V: as in ``mip``). Costs no message."""
        ...


class BusClosedError(Exception):
    """The process is stopping; the vCPU must leave its loop without finishing the instruction."""
