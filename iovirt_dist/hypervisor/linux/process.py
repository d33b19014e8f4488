"""What belongs to one process: its descriptors, directory, memory and signals."""

from __future__ import annotations

from dataclasses import dataclass

from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.memory import AddressSpace
from iovirt_dist.hypervisor.linux.nodes import O_ACCMODE, O_PATH, O_RDWR, O_WRONLY, Directory, Node
from iovirt_dist.hypervisor.linux.system import System
from iovirt_dist.hypervisor.linux.tree import CONSOLE_PATH

MAX_FILES = 256
"""Descriptors of a process (RLIMIT_NOFILE)."""
PID = 2
"""Process number of a program guest's one process: 1 would make programs believe that they are init."""
SIG_DEFAULT, SIG_IGNORE = 0, 1
_AT_FDCWD = -100
_HARMLESS = frozenset({17, 18, 19, 20, 21, 22, 23, 28})
"""Signals that do not end a process: CHLD, CONT, URG and WINCH; STOP, TSTP, TTIN, TTOU: nobody could continue it."""


@dataclass(slots=True)
class OpenFile:
    """An open file description (open(2)); descriptors that were duplicated share it.

    Attributes:
        node: What is open.
        flags: File status flags and access mode.
        position: Offset of the next transfer, bytes.
    """

    node: Node
    flags: int
    position: int = 0

    def check_opened(self) -> None:
        """Raise CallError EBADF if it is open as a path only (open(2), O_PATH)."""
        if self.flags & O_PATH:
            raise CallError(Errno.EBADF)

    def check_readable(self) -> None:
        """Raise CallError EBADF if it is open for writing only, or as a path only."""
        if self.flags & O_PATH or self.flags & O_ACCMODE == O_WRONLY:
            raise CallError(Errno.EBADF)

    def check_writable(self) -> None:
        """Raise CallError EBADF if it is open for reading only."""
        if self.flags & O_PATH or not self.flags & O_ACCMODE:
            raise CallError(Errno.EBADF)


class FileTable:
    """A process's file descriptors.

    Args:
        first: Lowest number that is given.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._files: dict[int, OpenFile] = {}
        self._close_on_exec: set[int] = set()

    def __contains__(self, fd: int) -> bool:
        return fd in self._files

    def items(self) -> list[tuple[int, OpenFile]]:
        """Return all descriptors."""
        return list(self._files.items())

    def get(self, fd: int) -> OpenFile:
        """Return an open file.

        Raises:
            CallError: EBADF.
        """
        file = self._files.get(fd)
        if file is None:
            raise CallError(Errno.EBADF)
        return file

    def add(self, file: OpenFile, *, minimum: int = 0, close_on_exec: bool = False) -> int:
        """Give a file the lowest free number from `minimum` on.

        Raises:
            CallError: EMFILE.
        """
        fd = max(minimum, self._first)
        while fd in self._files:
            fd += 1
        if fd >= self._first + MAX_FILES:
            raise CallError(Errno.EMFILE)
        self.put(fd, file, close_on_exec=close_on_exec)
        return fd

    def put(self, fd: int, file: OpenFile, *, close_on_exec: bool = False) -> None:
        """Let a number be a file, whatever it was.

        Raises:
            CallError: EBADF: no such number can be.
        """
        if not self._first <= fd < self._first + MAX_FILES:
            raise CallError(Errno.EBADF)
        self._files[fd] = file
        self.set_close_on_exec(fd, close_on_exec)

    def close(self, fd: int) -> None:
        """Free a number.

        Raises:
            CallError: EBADF.
        """
        self.get(fd)
        del self._files[fd]
        self._close_on_exec.discard(fd)

    def closes_on_exec(self, fd: int) -> bool:
        """Whether FD_CLOEXEC is set."""
        return fd in self._close_on_exec

    def set_close_on_exec(self, fd: int, on: bool) -> None:
        """Set or clear FD_CLOEXEC."""
        if on:
            self._close_on_exec.add(fd)
        else:
            self._close_on_exec.discard(fd)


class Process:
    """One process.

    Args:
        system: What it shares with others.
        number: Its identity in messages.
        name: Name of its program.
        memory: Its address space.

    Attributes:
        pid: Process number as programs see it.
        files: Its descriptors.
        directory: Current directory.
        umask: File mode creation mask.
        actions: What it asked for signals, by number: the kernel's ``struct sigaction``.
        pending: Signals that were sent and have had no effect yet: they are blocked, or it makes no call.
        blocked: Blocked signals, as 8 bytes.
        thread_name: What prctl tells, 15 bytes at most.
        thread_pointer: As it was set last, for calls that ask.
    """

    def __init__(self, system: System, number: int, name: str, memory: AddressSpace) -> None:
        self.system = system
        self.number = number
        self.name = name
        self.memory = memory
        self.pid = PID
        self.files = FileTable(system.parts.first_fd)
        self.directory: Directory = system.tree.root
        self.umask = 0o22
        self.actions: dict[int, bytes] = {}
        self.pending: set[int] = set()
        self.blocked = bytes(8)
        self.thread_pointer = 0
        self.thread_name = name.rpartition("/")[2].encode("utf-8", "surrogateescape")[:15]
        if not system.parts.first_fd:
            console = OpenFile(system.tree.find(CONSOLE_PATH, system.tree.root, {}), O_RDWR)
            for fd in range(3):
                self.files.put(fd, console)

    @property
    def program_path(self) -> str:
        """Where ``/proc/self/exe`` leads."""
        return self.name if self.name.startswith("/") else f"/{self.name}"

    def links(self) -> dict[str, str | Node]:
        """Return the links that ``/proc/self`` has for this process."""
        links: dict[str, str | Node] = {f"/proc/self/fd/{fd}": file.node for fd, file in self.files.items()}
        links["/proc/self/exe"] = self.program_path
        links["/proc/self/cwd"] = self.directory
        return links

    def find(self, path: str, directory: int = _AT_FDCWD, *, follow: bool = True) -> Node:
        """Return what a path leads to.

        Args:
            path: As given.
            directory: Descriptor of the directory where a relative path starts, or AT_FDCWD.
            follow: Whether to follow a link in the last place.

        Raises:
            CallError: As `FileTree.find`; EBADF or ENOTDIR for the descriptor.
        """
        if not path:
            raise CallError(Errno.ENOENT)
        base = self.directory
        if directory != _AT_FDCWD and not path.startswith("/"):
            node = self.files.get(directory).node
            if not isinstance(node, Directory):
                raise CallError(Errno.ENOTDIR)
            base = node
        return self.system.tree.find(path, base, self.links(), follow=follow)

    def handler(self, signal: int) -> int:
        """Return the address of a signal's handler, or `SIG_DEFAULT`, or `SIG_IGNORE`."""
        action = self.actions.get(signal)
        return int.from_bytes(action[: self.system.layouts.word_bytes], "little") if action else SIG_DEFAULT

    def has_handler(self, signal: int) -> bool:
        """Whether the process has a handler for a signal."""
        return self.handler(signal) not in (SIG_DEFAULT, SIG_IGNORE)

    def is_blocked(self, signal: int) -> bool:
        """Whether a signal waits until it is unblocked."""
        return bool(int.from_bytes(self.blocked, "little") >> signal - 1 & 1)

    def take_signals(self, *, masked: bool = True) -> int:
        """Let pending signals have their effect.

        Args:
            masked: Those that are blocked stay pending.

        Returns:
            The one that ends the process, 0 if none does.
        """
        due = {signal for signal in self.pending if not (masked and self.is_blocked(signal))}
        self.pending -= due
        return min(filter(self.dies_of, due), default=0)

    def dies_of(self, signal: int) -> bool:
        """Whether a signal ends the process; one that has a handler does not, though the handler is never called."""
        return signal not in _HARMLESS and self.handler(signal) == SIG_DEFAULT
