"""Capture files in the format of libpcap, with times in nanoseconds.

Format: pcap-savefile(5), also draft-ietf-opsawg-pcap, sections 4 and 5; here always little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MAGIC_NANOSECONDS: Final = 0xA1B2_3C4D
LINK_TYPE_ETHERNET: Final = 1
SNAP_BYTES: Final = 65535
"""Longest frame that a file may hold."""

LIMIT_BYTES: Final = 64 << 20
"""A file that reaches this becomes ``FILE.1`` and a new one begins."""

FILE_HEADER: Final = struct.Struct("<IHHiIII")
"""Magic, version 2.4, two zeroes, snap length, link type."""
RECORD_HEADER: Final = struct.Struct("<IIII")
"""Seconds, nanoseconds, length here, length on the wire."""

_NS_PER_S: Final = 1_000_000_000


def file_header() -> bytes:
    """Return what a capture file begins with."""
    return FILE_HEADER.pack(MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAP_BYTES, LINK_TYPE_ETHERNET)


def records(frames: Sequence[bytes], wall_ns: int) -> bytes:
    """Return the records of frames that passed at one time.

    Args:
        frames: At most `SNAP_BYTES` bytes each.
        wall_ns: ns since 1970 UTC.
    """
    seconds, nanoseconds = divmod(wall_ns, _NS_PER_S)
    pack = RECORD_HEADER.pack
    return b"".join([part for f in frames for part in (pack(seconds, nanoseconds, len(f), len(f)), f)])


class PcapFile:
    """A capture file that is written as frames pass, so that a reader may follow it.

    Args:
        path: Replaced if it exists; its folder is made if absent.
        limit_bytes: A file that reaches this becomes ``FILE.1``.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._fd = -1
        self._size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._begin()

    def write(self, frames: Sequence[bytes], wall_ns: int) -> None:
        """Write frames that passed at one time.

        Raises:
            OSError: The file system refuses; the file ends with a whole record then.
        """
        data = records(frames, wall_ns)
        if self._size > FILE_HEADER.size and self._size + len(data) > self._limit_bytes:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._begin()
        self._append(data)

    def close(self) -> None:
        """Close the file; it stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _begin(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._size = 0
        try:
            self._append(file_header())
        except OSError:
            self.close()
            raise

    def _append(self, data: bytes) -> None:
        view, end = memoryview(data), self._size + len(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise
        self._size = end
