"""``/dev/vda``: a block device for byte-granular access, in front of a disk that knows blocks only.

What is not aligned is read whole and cut, or read, changed and written back. Nothing is cached: a write has reached
the backend when it returns, and fsync is the backend's FLUSH.
"""

from __future__ import annotations

import stat
import struct

from iovirt_dist.abi import linux_codes as codes
from iovirt_dist.drivers.backend import DiskBackend
from iovirt_dist.hypervisor.linux.errno import CallError, Errno, check
from iovirt_dist.hypervisor.linux.nodes import O_ACCMODE, O_CREAT, O_DIRECT, O_DSYNC, O_EXCL, FileStatus, Node
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import DiskTransfer, Steps
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode

MAJOR, MINOR = 254, 0
"""Of the first disk of virtio, whose major number is allocated from 254 downwards."""
SECTOR_BYTES = 512
_RANGE = struct.Struct("<QQ")


class DiskDevice(Node):
    """The node of a disk.

    Args:
        path: Absolute path.
        inode: Its number.
        disk: What its geometry is; transfers go through `waits.DiskTransfer`.
    """

    seekable = True
    is_device = True

    def __init__(self, path: str, inode: int, disk: DiskBackend) -> None:
        super().__init__(path, inode)
        self._size = disk.size_bytes
        self._block = max(disk.block_bytes, SECTOR_BYTES)
        self._end = self._size - self._size % self._block
        self._read_only = disk.read_only

    def status(self) -> FileStatus:
        """A block device."""
        return FileStatus(stat.S_IFBLK | 0o660, 0, self.inode, (MAJOR, MINOR))

    def check_open(self, flags: int) -> None:
        """A disk that cannot be written cannot be opened for that (Linux block/bdev.c)."""
        if flags & O_ACCMODE and self._read_only:
            raise CallError(Errno.EACCES)
        if flags & O_CREAT and flags & O_EXCL:
            raise CallError(Errno.EEXIST)

    def size(self) -> int:
        """The capacity in whole blocks."""
        return self._end

    def seek(self, position: int) -> int:
        """Return a position on the disk; there is none behind its end."""
        if not 0 <= position <= self._end:
            raise CallError(Errno.EINVAL)
        return position

    def at_end(self, position: int) -> bool:
        """At or behind the last block's end."""
        return position >= self._end

    def read(self, position: int, length: int, flags: int) -> Steps[Buffer]:
        """Read the blocks around the range, and return the range of them without copying."""
        self._check_direct(position, length, flags)
        length = min(length, self._end - position)
        if length <= 0:
            return b""
        first = position - position % self._block
        end = min(-(-(position + length) // self._block) * self._block, first + MAX_DATA_BYTES)
        data = yield from self._transfer(Opcode.READ, first, end - first)
        if len(data) != end - first:
            raise CallError(Errno.EIO)
        return memoryview(data)[position - first : position - first + length]

    def write(self, position: int, data: memoryview, flags: int) -> Steps[int]:
        """Write whole blocks as they are, and what remains at either edge by changing the block there."""
        if position >= self._end:
            raise CallError(Errno.ENOSPC)
        self._check_direct(position, len(data), flags)
        data = data[: self._end - position]
        at, left = position, data
        while left:
            inside = at % self._block
            whole = len(left) - len(left) % self._block
            if inside or not whole:
                taken = min(self._block - inside, len(left))
                yield from self._patch(at - inside, inside, left[:taken])
            else:
                taken = min(whole, MAX_DATA_BYTES - MAX_DATA_BYTES % self._block)
                yield from self._transfer(Opcode.WRITE, at, taken, left[:taken])
            at, left = at + taken, left[taken:]
        if flags & O_DSYNC:
            yield from self.sync()
        return len(data)

    def sync(self) -> Steps[None]:
        """Flush the disk."""
        yield from self._transfer(Opcode.FLUSH)

    def ioctl(self, code: int, request: Request) -> Reply | Steps[Reply]:
        """Geometry, flush and discard (include/uapi/linux/fs.h)."""
        word = request.process.system.layouts.word_bytes
        number = {
            codes.BLKROGET: (4, int(self._read_only)),
            codes.BLKSSZGET: (4, self._block),
            codes.BLKPBSZGET: (4, self._block),
            codes.BLKIOMIN: (4, self._block),
            codes.BLKIOOPT: (4, 0),
            codes.BLKBSZGET[word]: (4, 4096),
            codes.BLKGETSIZE: (word, self._end // SECTOR_BYTES),
            codes.BLKGETSIZE64[word]: (8, self._end),
        }.get(code)
        if number is not None:
            size, value = number
            if value >> 8 * size:
                raise CallError(Errno.EFBIG)
            return Reply(0, {"argument": value.to_bytes(size, "little")})
        if code == codes.BLKFLSBUF:
            return self._flush()
        if code == codes.BLKDISCARD:
            request.process.files.get(request.signed("fd")).check_writable()
            return self._discard(*_RANGE.unpack(request.data("argument")))
        raise CallError(Errno.ENOTTY)

    def _check_direct(self, position: int, length: int, flags: int) -> None:
        """With O_DIRECT everything must be aligned (open(2), notes)."""
        if flags & O_DIRECT and (position % self._block or length % self._block):
            raise CallError(Errno.EINVAL)

    def _flush(self) -> Steps[Reply]:
        yield from self.sync()
        return Reply()

    def _discard(self, start: int, length: int) -> Steps[Reply]:
        if start % self._block or length % self._block or start + length > self._end:
            raise CallError(Errno.EINVAL)
        if length:
            yield from self._transfer(Opcode.DISCARD, start, length)
        return Reply()

    def _patch(self, block: int, inside: int, data: memoryview) -> Steps[None]:
        """Change part of one block."""
        old = yield from self._transfer(Opcode.READ, block, self._block)
        if len(old) != self._block:
            raise CallError(Errno.EIO)
        new = bytearray(old)
        new[inside : inside + len(data)] = data
        yield from self._transfer(Opcode.WRITE, block, self._block, new)

    def _transfer(self, opcode: Opcode, offset: int = 0, length: int = 0, data: Buffer = b"") -> Steps[Buffer]:
        outcome = yield DiskTransfer(opcode, offset, length, data)
        check(outcome.status)
        return outcome.data
