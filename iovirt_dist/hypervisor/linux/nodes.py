"""What a path leads to: files, directories, and the devices that need no backend."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Steps
from iovirt_dist.wire.codec import Buffer

O_ACCMODE, O_WRONLY, O_RDWR = 3, 1, 2
O_PATH = 0o10000000
O_CREAT, O_EXCL, O_NONBLOCK, O_DSYNC, O_DIRECT = 0o100, 0o200, 0o4000, 0o10000, 0o40000
MAX_POSITION = (1 << 63) - 1
BLOCK_BYTES = 4096
"""``st_blksize``."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Attributes of a file, as stat and statx tell them.

    Attributes:
        mode: Type and permissions.
        size: Bytes; 0 for devices.
        inode: Number, unique in the tree.
        device: Major and minor number of a device file.
        links: Hard links.
    """

    mode: int
    size: int = 0
    inode: int = 1
    device: tuple[int, int] = (0, 0)
    links: int = 1


class Node:
    """Base of all nodes: each method does what Linux does where the kind of file has no such operation.

    Methods that move data may wait (`waits.settle`); any of them may raise CallError.

    Attributes:
        path: Absolute path in the tree.
        inode: Its number.
        seekable: Whether the file has a position.
        discards: Whether what is written vanishes, so that nobody looks at the buffer.
        is_device: Whether a virtual device is behind it, so that its transfers are told to `System.observer`.
    """

    seekable = False
    discards = False
    is_device = False

    def __init__(self, path: str, inode: int = 1) -> None:
        self.path = path
        self.inode = inode

    def status(self) -> FileStatus:
        """Return the attributes."""
        raise NotImplementedError

    def check_open(self, flags: int) -> None:
        """Refuse to be opened with these flags, or not."""

    def size(self) -> int:
        """Return where SEEK_END is."""
        raise CallError(Errno.EINVAL)

    def seek(self, position: int) -> int:
        """Return where lseek to a position leads; CallError EINVAL for one that cannot be."""
        if not 0 <= position <= MAX_POSITION:
            raise CallError(Errno.EINVAL)
        return position

    def at_end(self, position: int) -> bool:
        """Whether a read at a position gives nothing, so that nobody looks at the buffer."""
        return False

    def read(self, position: int, length: int, flags: int) -> Buffer | Steps[Buffer]:
        """Return up to `length` bytes, at least 1, from a position; none at the end."""
        raise CallError(Errno.EINVAL)

    def write(self, position: int, data: memoryview, flags: int) -> int | Steps[int]:
        """Write at a position; returns how many bytes, at least 1, were taken."""
        raise CallError(Errno.EINVAL)

    def sync(self) -> Steps[None] | None:
        """Make durable what was written."""
        raise CallError(Errno.EINVAL)

    def ioctl(self, code: int, request: Request) -> Reply | Steps[Reply]:
        """Carry out an ioctl."""
        raise CallError(Errno.ENOTTY)

    def readable(self) -> bool:
        """Whether a read would not wait."""
        return True

    def writable(self) -> bool:
        """Whether a write would not wait."""
        return True


class RegularFile(Node):
    """A file whose content is in memory; read-only.

    Args:
        path: Absolute path.
        inode: Its number.
        content: The bytes.
    """

    seekable = True

    def __init__(self, path: str, inode: int, content: Buffer) -> None:
        super().__init__(path, inode)
        self._content = memoryview(content).toreadonly()

    def status(self) -> FileStatus:
        """A regular file that everybody may read and run."""
        return FileStatus(stat.S_IFREG | 0o555, len(self._content), self.inode)

    def check_open(self, flags: int) -> None:
        """Refuse to be written."""
        if flags & O_ACCMODE:
            raise CallError(Errno.EROFS)

    def size(self) -> int:
        """The content's length."""
        return len(self._content)

    def at_end(self, position: int) -> bool:
        """Behind the content."""
        return position >= len(self._content)

    def read(self, position: int, length: int, flags: int) -> Buffer:
        """Return a view of the content."""
        return self._content[position : position + length]

    def sync(self) -> None:
        """There is nothing to write."""


class Directory(Node):
    """A directory.

    Args:
        path: Absolute path.
        inode: Its number.
        parent: The directory above, None for the root.

    Attributes:
        children: Its entries by name.
        parent: The directory above; the root's is itself.
    """

    seekable = True

    def __init__(self, path: str, inode: int, parent: Directory | None = None) -> None:
        super().__init__(path, inode)
        self.children: dict[str, Node] = {}
        self.parent: Directory = parent or self

    def status(self) -> FileStatus:
        """A directory that nobody may write."""
        below = sum(isinstance(child, Directory) for child in self.children.values())
        return FileStatus(stat.S_IFDIR | 0o555, BLOCK_BYTES, self.inode, links=2 + below)

    def check_open(self, flags: int) -> None:
        """Only for reading."""
        if flags & (O_ACCMODE | O_CREAT):
            raise CallError(Errno.EISDIR)

    def entries(self) -> list[tuple[str, Node]]:
        """Return all entries, ``.`` and ``..`` first, in an order that does not change."""
        return [(".", self), ("..", self.parent), *sorted(self.children.items())]

    def size(self) -> int:
        """Positions are numbers of entries."""
        return len(self.children) + 2

    def read(self, position: int, length: int, flags: int) -> Buffer:
        """Directories are read with getdents64."""
        raise CallError(Errno.EISDIR)

    def sync(self) -> None:
        """There is nothing to write."""


class SymbolicLink(Node):
    """A symbolic link.

    Args:
        path: Absolute path.
        inode: Its number.
        target: Where it leads.
    """

    def __init__(self, path: str, inode: int, target: str) -> None:
        super().__init__(path, inode)
        self.target = target

    def status(self) -> FileStatus:
        """A link; its size is the target's length."""
        return FileStatus(stat.S_IFLNK | 0o777, len(self.target.encode("utf-8", "surrogateescape")), self.inode)


class MemoryDevice(Node):
    """``/dev/null`` and ``/dev/zero`` (Linux drivers/char/mem.c).

    Args:
        path: Absolute path.
        inode: Its number.
        minor: 3 for null, 5 for zero.
    """

    seekable = True
    discards = True

    def __init__(self, path: str, inode: int, minor: int) -> None:
        super().__init__(path, inode)
        self._minor = minor

    def status(self) -> FileStatus:
        """A character device of major number 1."""
        return FileStatus(stat.S_IFCHR | 0o666, 0, self.inode, (1, self._minor))

    def size(self) -> int:
        """There is no end."""
        return 0

    def seek(self, position: int) -> int:
        """Every position is 0."""
        return 0

    def at_end(self, position: int) -> bool:
        """Null is always at its end."""
        return self._minor == 3

    def read(self, position: int, length: int, flags: int) -> Buffer:
        """Zeroes."""
        return bytes(length)

    def write(self, position: int, data: memoryview, flags: int) -> int:
        """Take everything."""
        return len(data)


def stat_fields(status: FileStatus) -> Mapping[str, int]:
    """Return the fields of ``struct stat`` and its relatives by the names that `abi.layouts` gives them."""
    major, minor = status.device
    return {
        "dev": 1,
        "ino": status.inode,
        "ino_low": status.inode,
        "mode": status.mode,
        "nlink": status.links,
        "rdev": minor & 0xFF | major << 8 | (minor & ~0xFF) << 12,
        "rdev_major": major,
        "rdev_minor": minor,
        "dev_minor": 1,
        "size": status.size,
        "blksize": BLOCK_BYTES,
        "blocks": -(-status.size // 512),
    }
