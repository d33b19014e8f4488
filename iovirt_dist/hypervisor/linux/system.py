"""What all processes of a guest share: the file tree, the terminal, the clock, the name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iovirt_dist.abi.layouts import Layouts
from iovirt_dist.drivers.backend import DiskBackend, TerminalBackend
from iovirt_dist.hypervisor.linux.terminal import Terminal
from iovirt_dist.hypervisor.linux.tree import FileTree
from iovirt_dist.wire.codec import Buffer

Observer = Callable[[int, str, int, int, str], None]
"""Told of each call that moves data of a device or flushes it: process, path, offset in bytes, length in bytes, and
``read``, ``write`` or ``flush``."""

DEFAULT_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class SystemParts:
    """What a system is built from.

    Attributes:
        layouts: Structures of its architecture.
        node: Its name (uname).
        disk: Behind ``/dev/vda``, None without one.
        terminal: Behind the console, None without one.
        entropy: Whether there is a source of randomness.
        files: Read-only files by absolute path; views of memory are not copied.
        wall_ns: Wall clock at machine time 0, ns since 1970 UTC.
        memory_bytes: Most memory that heap and mapped ranges of one process take.
        first_fd: Lowest number of a file descriptor that a process is given; with 0 the first three are the terminal.
        observer: See `Observer`.
    """

    layouts: Layouts
    node: str = "guest"
    disk: DiskBackend | None = None
    terminal: TerminalBackend | None = None
    entropy: bool = False
    files: Mapping[str, Buffer] = field(default_factory=dict)
    wall_ns: int = 0
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    first_fd: int = 0
    observer: Observer | None = None


class System:
    """The emulated operating system of one guest, without its processes.

    Args:
        parts: What it is built from.

    Attributes:
        parts: The same.
        layouts: Structures of its architecture.
        terminal: The console.
        tree: All files.
        unknown: How often each call without a routine was made, by name.

    Raises:
        ValueError: The files' paths contradict each other or the devices'.
    """

    def __init__(self, parts: SystemParts) -> None:
        self.parts = parts
        self.layouts = parts.layouts
        self.terminal = Terminal(parts.terminal)
        self.tree = FileTree(parts.files, self.terminal, parts.disk, parts.entropy)
        self.unknown: Counter[str] = Counter()

    def observe(self, process: int, path: str, offset: int, length: int, direction: str) -> None:
        """Tell the observer, if there is one, of a call to a device."""
        if self.parts.observer is not None:
            self.parts.observer(process, path, offset, length, direction)
