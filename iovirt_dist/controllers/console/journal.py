"""What was written to a terminal's log last, and for which commands: a restarted controller does not print twice.

Theory of operation. Before data goes to the log, a record says where the log ends and which commands' data will follow.
After a crash the log's length tells how much of it followed. A command that comes again, as its completion was lost, is
done as far as that. The record of the last write is all there is: whoever submits in order gets completions in order,
and all commands of a write complete together, so of earlier ones nothing comes again.

This is for the end of the process, not of the machine: the operating system keeps what was written, in the order of the
writes. A record that is torn or does not fit the log says nothing, and what comes again is printed again.

The record, little-endian: u32 CRC-32 (zlib) of all that follows, u32 version 1, 16 bytes owner, u64 inode number of the
log, u64 its length before, u32 number of parts, then for each 16 bytes id, u64 start, u64 length.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iovirt_dist.controllers.console.written import MAX_PARTS, NOTHING_WRITTEN, Part, Written

_VERSION: Final = 1
_CHECK: Final = struct.Struct("<I")
_HEADER: Final = struct.Struct("<I16sQQI")
_PART: Final = struct.Struct("<16sQQ")
_MOST_BYTES: Final = _CHECK.size + _HEADER.size + MAX_PARTS * _PART.size


class WriteJournal:
    """The record of one terminal's last write.

    Args:
        path: Its file; made if absent.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def announce(self, owner: bytes, parts: Sequence[Part], inode: int, log_bytes: int) -> None:
        """Say what is about to be appended to the log.

        Args:
            owner: Whose commands they are.
            parts: Theirs, at most `MAX_PARTS`, in the order of the data; none voids the record.
            inode: The log's inode number.
            log_bytes: Its length.

        Raises:
            OSError: The record cannot be written.
        """
        body = _HEADER.pack(_VERSION, owner, inode, log_bytes, len(parts))
        body += b"".join([_PART.pack(*part) for part in parts])
        os.pwrite(self._fd, _CHECK.pack(zlib.crc32(body)) + body, 0)

    def written(self, inode: int, log_bytes: int) -> Written:
        """Tell what of the last write is in the log.

        Args:
            inode: The log's inode number now.
            log_bytes: Its length now.

        Raises:
            OSError: The record cannot be read.
        """
        record = os.pread(self._fd, _MOST_BYTES, 0)
        if len(record) < _CHECK.size + _HEADER.size:
            return NOTHING_WRITTEN
        version, owner, log, before, count = _HEADER.unpack_from(record, _CHECK.size)
        end = _CHECK.size + _HEADER.size + count * _PART.size
        if version != _VERSION or count > MAX_PARTS or len(record) < end:
            return NOTHING_WRITTEN
        if _CHECK.unpack_from(record)[0] != zlib.crc32(record[_CHECK.size : end]):
            return NOTHING_WRITTEN
        parts = list(_PART.iter_unpack(record[_CHECK.size + _HEADER.size : end]))
        # another log: this one was begun for the next write, so that one was whole
        left = log_bytes - before if log == inode else sum([length for _, _, length in parts])
        if left < 0:
            return NOTHING_WRITTEN
        done: dict[bytes, int] = {}
        for id_, start, length in parts:
            done[id_] = start + min(left, length)
            left -= min(left, length)
        return Written(owner, done)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._fd)
