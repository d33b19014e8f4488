"""System calls about the address space (brk(2), mmap(2), munmap(2), mprotect(2), mremap(2), madvise(2))."""

from __future__ import annotations

import struct

from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.memory import PAGE_BYTES, Range
from iovirt_dist.hypervisor.linux.request import Reply, Request

_MAP_SHARED, _MAP_PRIVATE, _MAP_VALIDATE, _MAP_TYPE = 1, 2, 3, 15
_MAP_FIXED, _MAP_ANONYMOUS, _MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x100000
_MREMAP_MAYMOVE = 1
_PROTECTIONS = 7
_OLD_MMAP = struct.Struct("<6I")
_MMAP_WORDS = ("address", "length", "protection", "flags")
_ADDRESS_END = 1 << 48


def brk(request: Request) -> Reply:
    """Move the heap's end; the result is where it is now, changed or not (brk(2), C library/kernel differences)."""
    memory = request.process.memory
    effects = memory.set_break(request.word("address"))
    return Reply(memory.break_end, effects=effects)


def mmap(request: Request) -> Reply:
    """Mmap and mmap2: anonymous memory, and ``/dev/zero``, which is the same; no files."""
    if request.has("offset") and request.word("offset") % PAGE_BYTES:
        raise CallError(Errno.EINVAL)
    address, length, protection, flags = (request.word(name) for name in _MMAP_WORDS)
    return _map(request, address, length, protection, flags, request.signed("fd"))


def old_mmap(request: Request) -> Reply:
    """Mmap of i386: its arguments are in memory."""
    address, length, protection, flags, fd, offset = _OLD_MMAP.unpack(request.data("arguments"))
    if offset % PAGE_BYTES:
        raise CallError(Errno.EINVAL)
    return _map(request, address, length, protection, flags, fd - (fd >> 31 << 32))


def munmap(request: Request) -> Reply:
    """Unmap a range."""
    return Reply(0, effects=request.process.memory.unmap(request.word("address"), request.word("length")))


def mprotect(request: Request) -> Reply:
    """Change a range's protection."""
    protection = request.word("protection")
    if protection & ~_PROTECTIONS:
        raise CallError(Errno.EINVAL)
    memory = request.process.memory
    return Reply(0, effects=memory.protect(request.word("address"), request.word("length"), protection))


def mremap(request: Request) -> Reply:
    """Change a range's size where it is; a caller that lets it move gets ENOMEM and copies for itself."""
    if request.word("flags") & ~_MREMAP_MAYMOVE:
        raise CallError(Errno.EINVAL)
    address, old_length, length = (request.word(name) for name in ("address", "old_length", "length"))
    return Reply(address, effects=request.process.memory.remap(address, old_length, length))


def madvise(request: Request) -> Reply:
    """Advice is taken and has no effect; what it must find mapped is checked."""
    address, length = request.word("address"), request.word("length")
    if address % PAGE_BYTES or address + length >> 8 * request.process.system.layouts.word_bytes:
        raise CallError(Errno.EINVAL)
    if request.signed("advice") not in _HARMLESS_ADVICE:
        raise CallError(Errno.EINVAL)
    if length and not request.process.memory.is_mapped(Range(address, address + length)):
        raise CallError(Errno.ENOMEM)
    return Reply()


_HARMLESS_ADVICE = frozenset({0, 1, 2, 3, 8, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23})
"""Advice that can be ignored; DONTNEED, REMOVE, WIPEONFORK and KEEPONFORK promise a change of content."""


def _map(request: Request, address: int, length: int, protection: int, flags: int, fd: int) -> Reply:
    """Map memory after a check of the arguments in Linux's order (mm/mmap.c)."""
    if not length:
        raise CallError(Errno.EINVAL)
    if length > _ADDRESS_END:
        raise CallError(Errno.ENOMEM)
    if flags & _MAP_TYPE not in (_MAP_SHARED, _MAP_PRIVATE, _MAP_VALIDATE):
        raise CallError(Errno.EINVAL)
    if not flags & _MAP_ANONYMOUS and request.process.files.get(fd).node.path != "/dev/zero":
        raise CallError(Errno.ENODEV)
    replace = not flags & _MAP_FIXED_NOREPLACE
    fixed = bool(flags & (_MAP_FIXED | _MAP_FIXED_NOREPLACE))
    start, effect = request.process.memory.map(address, length, protection & _PROTECTIONS, fixed=fixed, replace=replace)
    return Reply(start, effects=(effect,))
