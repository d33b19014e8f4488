"""What the interception of system calls is built from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from iovirt_dist.abi.registry import LAYOUTS
from iovirt_dist.drivers.backend import DiskBackend, EntropyBackend, TerminalBackend
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.linux.system import DEFAULT_MEMORY_BYTES, Observer, SystemParts
from iovirt_dist.wire.codec import Buffer

FIRST_MACHINE_FD = 1024
"""Lowest descriptor that is ours in a machine: above what its kernel gives."""


class Mode(enum.Enum):
    """Which calls are carried out."""

    PROGRAM = "program"
    """All: there is no kernel."""
    MACHINE = "machine"
    """Those on the disk's device file."""


@dataclass(frozen=True, slots=True)
class SystemCallParts:
    """What the interception of one guest is built from.

    Attributes:
        abi: Name of the ABI.
        mode: Which calls are carried out.
        lines: The CPU's interrupt inputs; changes leave with the replies.
        node: Name of the system (uname).
        disk: Behind ``/dev/vda``, None without one.
        terminal: Behind the console, None without one.
        entropy: Source of randomness, None without one.
        files: Read-only files of a program by absolute path; views are not copied.
        wall_ns: Wall clock at machine time 0, ns since 1970 UTC.
        memory_bytes: Most memory that a program's heap and mapped ranges take.
        observer: Told of each call to a device; see `linux.system.Observer`.
    """

    abi: str
    mode: Mode
    lines: InterruptLines
    node: str = "guest"
    disk: DiskBackend | None = None
    terminal: TerminalBackend | None = None
    entropy: EntropyBackend | None = None
    files: Mapping[str, Buffer] = field(default_factory=dict)
    wall_ns: int = 0
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    observer: Observer | None = None


def system_parts(parts: SystemCallParts) -> SystemParts:
    """Return what the emulated operating system is built from."""
    return SystemParts(
        layouts=LAYOUTS[parts.abi],
        node=parts.node,
        disk=parts.disk,
        terminal=parts.terminal,
        entropy=parts.entropy is not None,
        files=parts.files,
        wall_ns=parts.wall_ns,
        memory_bytes=parts.memory_bytes,
        first_fd=FIRST_MACHINE_FD if parts.mode is Mode.MACHINE else 0,
        observer=parts.observer,
    )
