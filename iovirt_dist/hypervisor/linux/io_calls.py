"""System calls that move data, and those on descriptors (read(2), write(2), lseek(2), fcntl(2), ioctl(2) ...)."""

from __future__ import annotations

from iovirt_dist.abi.layouts import DIRECTORY_ENTRY
from iovirt_dist.abi.table import MAX_VECTOR
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.nodes import MAX_POSITION, O_DIRECT, O_NONBLOCK, Directory, Node
from iovirt_dist.hypervisor.linux.process import OpenFile
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Steps, settle, settle_data
from iovirt_dist.wire.codec import Buffer

O_APPEND, O_CLOEXEC = 0o2000, 0o2000000
_SEEK_SET, _SEEK_CUR, _SEEK_END = 0, 1, 2
_SETTABLE = O_APPEND | O_NONBLOCK | O_DIRECT
_MOST_BYTES = 0x7FFF_F000
"""Most that one call transfers (Linux MAX_RW_COUNT)."""
_SENDFILE_BYTES = 1 << 20
"""Most that one sendfile transfers."""
_LAST_ADVICE = 5
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030


def read(request: Request) -> Steps[Reply]:
    """Read and readv: at the file's position, which moves."""
    file = _file(request)
    data = yield from _read_at(request, file, file.position)
    if file.node.seekable:
        file.position += len(data)
    return Reply(len(data), {"buffer": data})


def pread(request: Request) -> Steps[Reply]:
    """Pread64 and preadv: at an offset."""
    data = yield from _read_at(request, _file(request), _offset(request))
    return Reply(len(data), {"buffer": data})


def write(request: Request) -> Steps[Reply]:
    """Write and writev: at the file's position, which moves."""
    file = _file(request)
    written = yield from _write_at(request, file, file.position)
    if file.node.seekable:
        file.position += written
    return Reply(written)


def pwrite(request: Request) -> Steps[Reply]:
    """Pwrite64 and pwritev: at an offset."""
    return Reply((yield from _write_at(request, _file(request), _offset(request))))


def sendfile(request: Request) -> Steps[Reply]:
    """From one file to another; at the input's position, or at an offset in memory, which then moves."""
    process = request.process
    source, target = process.files.get(request.signed("in_fd")), process.files.get(request.signed("out_fd"))
    source.check_readable()
    target.check_writable()
    if not source.node.seekable or isinstance(source.node, Directory) or target.flags & O_APPEND:
        raise CallError(Errno.EINVAL)
    explicit = not request.is_null("offset")
    position = int.from_bytes(request.data("offset"), "little", signed=True) if explicit else source.position
    if position < 0:
        raise CallError(Errno.EINVAL)
    length = min(request.word("count"), _SENDFILE_BYTES)
    if not length or source.node.at_end(position):
        return Reply()
    content = yield from settle_data(source.node.read(position, length, source.flags))
    data = memoryview(content)
    _observe(request, source.node, position, len(data), "read")
    written = yield from settle(target.node.write(target.position, data, target.flags))
    _observe(request, target.node, target.position, written, "write")
    target.position += written if target.node.seekable else 0
    if not explicit:
        source.position += written
        return Reply(written)
    width = len(request.data("offset"))
    moved = position + written
    return Reply(written, {"offset": (moved & ((1 << 8 * width) - 1)).to_bytes(width, "little")})


def lseek(request: Request) -> Reply:
    """Move a file's position; the result is a word."""
    position = _seek(request, request.long("offset"))
    if position >> 8 * request.process.system.layouts.word_bytes - 1:
        raise CallError(Errno.EOVERFLOW)
    return Reply(position)


def llseek(request: Request) -> Reply:
    """Move a file's position on a 32-bit architecture; the result goes to memory."""
    return Reply(0, {"result": _seek(request, request.wide("offset")).to_bytes(8, "little")})


def fsync(request: Request) -> Steps[Reply]:
    """Make durable what was written to a file."""
    node = _file(request).node
    yield from settle(node.sync())
    _observe(request, node, 0, 0, "flush")
    return Reply()


def syncfs(request: Request) -> Steps[Reply]:
    """As fsync, on any file: the disk is the only thing that there is to flush."""
    node = _file(request).node
    if node.is_device and node.seekable:
        yield from settle(node.sync())
    return Reply()


def sync(request: Request) -> Steps[Reply]:
    """Make durable what was written anywhere: flush the disks that the process has open."""
    disks = {file.node for _, file in request.process.files.items() if file.node.is_device and file.node.seekable}
    for node in disks:
        yield from settle(node.sync())
    return Reply()


def close(request: Request) -> Reply:
    """Free a descriptor."""
    request.process.files.close(request.signed("fd"))
    return Reply()


def dup(request: Request) -> Reply:
    """Give a file another number."""
    return Reply(request.process.files.add(_any_file(request)))


def dup2(request: Request) -> Reply:
    """Give a file a certain number."""
    new = request.signed("new_fd")
    file = _any_file(request)
    if new != request.signed("fd"):
        request.process.files.put(new, file)
    return Reply(new)


def dup3(request: Request) -> Reply:
    """As dup2, with close-on-exec."""
    flags, new = request.unsigned("flags"), request.signed("new_fd")
    if flags & ~O_CLOEXEC or new == request.signed("fd"):
        raise CallError(Errno.EINVAL)
    request.process.files.put(new, _any_file(request), close_on_exec=bool(flags))
    return Reply(new)


def fcntl(request: Request) -> Reply:
    """Descriptor and status flags, and duplicates from a number on; there are no locks."""
    file, files, fd = _any_file(request), request.process.files, request.signed("fd")
    command, argument = request.unsigned("command"), request.word("argument")
    convert = request.process.system.layouts.open_flags
    if command in (_F_DUPFD, _F_DUPFD_CLOEXEC):
        if argument >= 1 << 20:
            raise CallError(Errno.EINVAL)
        return Reply(files.add(file, minimum=argument, close_on_exec=command == _F_DUPFD_CLOEXEC))
    if command == _F_GETFD:
        return Reply(int(files.closes_on_exec(fd)))
    if command == _F_SETFD:
        files.set_close_on_exec(fd, bool(argument & 1))
        return Reply()
    if command == _F_GETFL:
        return Reply(convert(file.flags))
    if command == _F_SETFL:
        file.check_opened()
        file.flags = file.flags & ~_SETTABLE | convert(argument & 0xFFFF_FFFF) & _SETTABLE
        return Reply()
    raise CallError(Errno.EINVAL)


def ioctl(request: Request) -> Steps[Reply]:
    """What the kind of file has."""
    return (yield from settle(_file(request).node.ioctl(request.unsigned("request"), request)))


def ftruncate(request: Request) -> Reply:
    """No file here has a size that can be set (ftruncate(2), EINVAL)."""
    _file(request)
    raise CallError(Errno.EINVAL)


def fadvise(request: Request) -> Reply:
    """Advice is taken and has no effect."""
    _file(request)
    if request.unsigned("advice") > _LAST_ADVICE:
        raise CallError(Errno.EINVAL)
    return Reply()


def getdents64(request: Request) -> Reply:
    """Entries of a directory, from the file's position on, as many as fit (getdents(2))."""
    file = _file(request)
    if not isinstance(file.node, Directory):
        raise CallError(Errno.ENOTDIR)
    room = request.room("buffer")
    records = bytearray()
    entries = file.node.entries()
    while file.position < len(entries):
        record = _directory_record(entries[file.position], file.position + 1)
        if len(records) + len(record) > room:
            if not records:
                raise CallError(Errno.EINVAL)
            break
        records += record
        file.position += 1
    return Reply(len(records), {"buffer": records})


def _directory_record(entry: tuple[str, Node], next_position: int) -> bytes:
    """Return one ``struct linux_dirent64``, padded to eight bytes."""
    name, node = entry
    text = name.encode("utf-8", "surrogateescape") + b"\0"
    length = -(-(DIRECTORY_ENTRY.size + len(text)) // 8) * 8
    fields = {"ino": node.inode, "offset": next_position, "length": length, "type": node.status().mode >> 12}
    return (DIRECTORY_ENTRY.pack(fields) + text).ljust(length, b"\0")


def _any_file(request: Request) -> OpenFile:
    """Return the file of a descriptor, also of one that is open as a path only."""
    return request.process.files.get(request.signed("fd"))


def _file(request: Request) -> OpenFile:
    file = _any_file(request)
    file.check_opened()
    return file


def _offset(request: Request) -> int:
    """Return the offset of a positioned transfer; on 64-bit architectures preadv's second register says nothing."""
    offset = request.wide("offset")
    if offset < 0:
        raise CallError(Errno.EINVAL)
    if not _file(request).node.seekable:
        raise CallError(Errno.ESPIPE)
    return offset


def _read_at(request: Request, file: OpenFile, position: int) -> Steps[Buffer]:
    """Read into the call's buffer."""
    file.check_readable()
    _check_vectors(request)
    node = file.node
    if isinstance(node, Directory):
        raise CallError(Errno.EISDIR)
    if node.at_end(position):
        return b""
    room = request.room("buffer")
    if not room:
        return b""
    data = yield from settle_data(node.read(position, room, file.flags))
    _observe(request, node, position, len(data), "read")
    return data


def _write_at(request: Request, file: OpenFile, position: int) -> Steps[int]:
    """Write from the call's buffer."""
    file.check_writable()
    _check_vectors(request)
    if file.node.discards and request.has("count"):
        return min(request.word("count"), _MOST_BYTES)
    data = request.data("buffer")
    if not data:
        return 0
    if position > MAX_POSITION - len(data):
        raise CallError(Errno.EFBIG)
    written = yield from settle(file.node.write(position, data, file.flags))
    _observe(request, file.node, position, written, "write")
    return written


def _check_vectors(request: Request) -> None:
    """The array of buffers is looked at before anything else."""
    if request.has("vectors"):
        if request.word("vectors") > MAX_VECTOR:
            raise CallError(Errno.EINVAL)
        request.room("buffer")


def _observe(request: Request, node: Node, offset: int, length: int, direction: str) -> None:
    if node.is_device:
        process = request.process
        process.system.observe(process.number, node.path, offset if node.seekable else 0, length, direction)


def _seek(request: Request, offset: int) -> int:
    """Set a file's position and return it (lseek(2))."""
    file = _file(request)
    node, whence = file.node, request.unsigned("whence")
    if not node.seekable:
        raise CallError(Errno.ESPIPE)
    if whence == _SEEK_CUR:
        offset += file.position
    elif whence == _SEEK_END:
        offset += node.size()
    elif whence != _SEEK_SET:
        raise CallError(Errno.EINVAL)
    file.position = node.seek(offset)
    return file.position
