"""Archives of initial RAM disks, in the format ``newc``.

Source: cpio(5), "New ASCII Format"; Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

from __future__ import annotations

import posixpath
import stat
from typing import BinaryIO, Final

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_ALIGNMENT: Final = 4


class CpioWriter:
    """Writes one archive. The same content makes the same bytes: every owner is root, every time 0.

    Folders of what is added are added in front of it, each once.

    Args:
        file: Where to write; the caller closes it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._position = 0
        self._folders = {"", "."}

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder, unless it is there.

        Args:
            path: Where it is to be, with or without a slash in front.
            mode: Permissions.
        """
        name = _name(path)
        if name not in self._folders:
            self._above(name)
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | mode, links=2)

    def add_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file; as `add_folder`."""
        name = _name(path)
        self._above(name)
        self._entry(name, stat.S_IFREG | mode, data)

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link; as `add_folder`."""
        name = _name(path)
        self._above(name)
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def add_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device; as `add_folder`."""
        name = _name(path)
        self._above(name)
        self._entry(name, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self) -> None:
        """Write what ends the archive."""
        self._entry(_TRAILER, 0)

    def _above(self, name: str) -> None:
        folder = posixpath.dirname(name)
        if folder not in self._folders:
            self.add_folder(folder)

    def _entry(
        self, name: str, mode: int, data: bytes = b"", *, links: int = 1, device: tuple[int, int] = (0, 0)
    ) -> None:
        """Write an entry: 13 numbers of 8 hexadecimal digits, the name with a NUL, the data, each padded to 4 bytes."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        owner, time, archive_device, checksum = (0, 0), 0, (0, 0), 0
        numbers = (self._inode, mode, *owner, links, time, len(data), *archive_device, *device, len(encoded), checksum)
        self._write(_MAGIC + b"".join(b"%08X" % number for number in numbers) + encoded)
        self._write(data)

    def _write(self, data: bytes) -> None:
        padding = -(self._position + len(data)) % _ALIGNMENT
        self._file.write(data)
        self._file.write(bytes(padding))
        self._position += len(data) + padding


def _name(path: str) -> str:
    """A path as archives have it: without a slash in front, normalised."""
    return posixpath.normpath(path).lstrip("/")
