"""The tree of files that programs see: read-only content from the topology, and the device files that exist."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from iovirt_dist.drivers.backend import DiskBackend
from iovirt_dist.hypervisor.linux.disk import DiskDevice
from iovirt_dist.hypervisor.linux.entropy import EntropyDevice
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.nodes import Directory, MemoryDevice, Node, RegularFile, SymbolicLink
from iovirt_dist.hypervisor.linux.terminal import Terminal, TerminalDevice
from iovirt_dist.wire.codec import Buffer

DISK_PATH = "/dev/vda"
CONSOLE_PATH = "/dev/console"
_TERMINALS = {CONSOLE_PATH: (5, 1), "/dev/tty": (5, 0)}
_ENTROPY = {"/dev/hwrng": (10, 183), "/dev/random": (1, 8), "/dev/urandom": (1, 9)}
_MEMORY = {"/dev/null": 3, "/dev/zero": 5}
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
MAX_LINKS = 8
"""Links that a path may lead through; Linux follows 40, but there are no such chains here."""
_NAME_MAX = 255


class FileTree:
    """All files of one guest.

    Args:
        files: Content by absolute path; directories above them come by themselves. It is not copied.
        terminal: Behind the terminal's device files.
        disk: Behind ``/dev/vda``, None without one.
        entropy: Whether there is a source of randomness.

    Raises:
        ValueError: A path is not absolute and in normal form, or it is a file and a directory, or a device.
    """

    def __init__(
        self, files: Mapping[str, Buffer], terminal: Terminal, disk: DiskBackend | None, entropy: bool
    ) -> None:
        self._inode = count(2).__next__
        self.root = Directory("/", 1)
        self._directory("/tmp")  # noqa: S108 - a directory of the guest
        for path, device in _TERMINALS.items():
            self._add(TerminalDevice(path, self._inode(), device, terminal))
        for path, minor in _MEMORY.items():
            self._add(MemoryDevice(path, self._inode(), minor))
        if disk is not None:
            self._add(DiskDevice(DISK_PATH, self._inode(), disk))
        if entropy:
            for path, device in _ENTROPY.items():
                self._add(EntropyDevice(path, self._inode(), device))
        for path, target in _LINKS.items():
            self._add(SymbolicLink(path, self._inode(), target))
        for path, content in files.items():
            self._add(RegularFile(path, self._inode(), content))

    def find(self, path: str, base: Directory, links: Mapping[str, str | Node], *, follow: bool = True) -> Node:
        """Return what a path leads to (path_resolution(7)).

        Args:
            path: Absolute, or relative to `base`.
            base: Where a relative path starts.
            links: The links in ``/proc/self`` and below, by path: a text is followed as a path, a node is it.
            follow: Whether to follow a link in the last place.

        Raises:
            CallError: ENOENT, ENOTDIR, ENAMETOOLONG, or ELOOP for links in a circle.
        """
        node: Node = self.root if path.startswith("/") else base
        parts = _parts(path)
        followed = 0
        while parts:
            part = parts.pop()
            if not isinstance(node, Directory):
                raise CallError(Errno.ENOTDIR)
            node = self._step(node, part, links)
            if isinstance(node, SymbolicLink) and (parts or follow or path.endswith("/")):
                followed += 1
                if followed > MAX_LINKS:
                    raise CallError(Errno.ELOOP)
                direct = links.get(node.path)
                if isinstance(direct, Node):
                    node = direct
                else:
                    parts += _parts(node.target)
                    node = self.root
        if path.endswith("/") and not isinstance(node, Directory):
            raise CallError(Errno.ENOTDIR)
        return node

    def _step(self, directory: Directory, part: str, links: Mapping[str, str | Node]) -> Node:
        """Go to an entry of a directory; ``/proc/self`` is made up of the links that the caller's process has."""
        if part == "..":
            return directory.parent
        if len(part.encode("utf-8", "surrogateescape")) > _NAME_MAX:
            raise CallError(Errno.ENAMETOOLONG)
        path = f"{directory.path.rstrip('/')}/{part}"
        target = links.get(path)
        if target is not None:
            return SymbolicLink(path, 1, target if isinstance(target, str) else target.path)
        child = directory.children.get(part)
        below = {link[len(path) + 1 :].partition("/")[0] for link in links if link.startswith(f"{path}/")}
        if below:
            made = Directory(path, 1, directory)
            made.children = dict(child.children) if isinstance(child, Directory) else {}
            made.children |= {name: SymbolicLink(f"{path}/{name}", 1, "") for name in below}
            return made
        if child is None:
            raise CallError(Errno.ENOENT)
        return child

    def _add(self, node: Node) -> None:
        above, _, name = node.path.rpartition("/")
        if not name or node.path != "/" + "/".join(reversed(_parts(node.path))) or ".." in _parts(node.path):
            raise ValueError(f"not an absolute path in normal form: {node.path!r}")
        directory = self._directory(above)
        if name in directory.children:
            raise ValueError(f"there is already a file or directory of that name: {node.path!r}")
        directory.children[name] = node

    def _directory(self, path: str) -> Directory:
        """Return a directory, making it and those above it."""
        node = self.root
        for part in reversed(_parts(path)):
            below = f"{node.path.rstrip('/')}/{part}"
            child = node.children.setdefault(part, Directory(below, self._inode(), node))
            if not isinstance(child, Directory):
                raise ValueError(f"both a file and a directory: {below!r}")
            node = child
        return node


def _parts(path: str) -> list[str]:
    """Return the components of a path, last first, without those that lead nowhere."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
