"""System calls about paths and what they lead to (open(2), stat(2), statx(2), readlink(2) ...)."""

from __future__ import annotations

from iovirt_dist.abi.layouts import STATX, Layout
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.io_calls import O_CLOEXEC
from iovirt_dist.hypervisor.linux.nodes import (
    O_CREAT,
    O_EXCL,
    O_PATH,
    Directory,
    Node,
    SymbolicLink,
    stat_fields,
)
from iovirt_dist.hypervisor.linux.process import OpenFile
from iovirt_dist.hypervisor.linux.request import Reply, Request

O_LARGEFILE, O_DIRECTORY, O_NOFOLLOW = 0o100000, 0o200000, 0o400000
_NOT_KEPT = 0o100 | 0o200 | 0o400 | 0o1000 | O_CLOEXEC
"""Flags of open that are no status flags: O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_CLOEXEC."""
_AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = 0x100, 0x1000
_STAT_FLAGS, _STATX_FLAGS, _ACCESS_FLAGS = 0x1900, 0x7900, 0x1300
"""What each call's flags may hold: AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EMPTY_PATH, AT_EACCESS, AT_STATX_*."""
_STATX_RESERVED = 1 << 31
_W_OK, _X_OK = 2, 1
_STATX_BASIC = 0x7FF


def open_file(request: Request) -> Reply:
    """Open and openat."""
    process = request.process
    flags = process.system.layouts.open_flags(request.unsigned("flags"))
    path = request.text("path")
    try:
        node = process.find(path, _directory(request), follow=not flags & O_NOFOLLOW)
    except CallError as error:
        if flags & O_CREAT and error.errno is Errno.ENOENT and path:
            process.find(_above(path), _directory(request))
            raise CallError(Errno.EROFS) from None
        raise
    if flags & O_CREAT and flags & O_EXCL:
        raise CallError(Errno.EEXIST)
    if isinstance(node, SymbolicLink) and not flags & O_PATH:
        raise CallError(Errno.ELOOP)
    if flags & O_DIRECTORY and not isinstance(node, Directory):
        raise CallError(Errno.ENOTDIR)
    if not flags & O_PATH:
        node.check_open(flags)
    kept = flags & ~_NOT_KEPT
    if process.system.layouts.word_bytes == 8:
        kept |= O_LARGEFILE
    return Reply(process.files.add(OpenFile(node, kept), close_on_exec=bool(flags & O_CLOEXEC)))


def access(request: Request) -> Reply:
    """Access, faccessat: everything may be read, devices may be written, the caller is root."""
    if request.unsigned("mode") & ~7:
        raise CallError(Errno.EINVAL)
    node = _find(request, allowed=_ACCESS_FLAGS)
    if request.unsigned("mode") & _W_OK:
        mode = node.status().mode
        if not mode & 0o222:
            raise CallError(Errno.EROFS)
    if request.unsigned("mode") & _X_OK and not node.status().mode & 0o111:
        raise CallError(Errno.EACCES)
    return Reply()


def readlink(request: Request) -> Reply:
    """Readlink, readlinkat: the target, without a zero at its end."""
    if request.signed("count") <= 0:
        raise CallError(Errno.EINVAL)
    node = request.process.find(request.text("path"), _directory(request), follow=False)
    if not isinstance(node, SymbolicLink):
        raise CallError(Errno.EINVAL)
    text = node.target.encode("utf-8", "surrogateescape")[: request.room("buffer")]
    return Reply(len(text), {"buffer": text})


def getcwd(request: Request) -> Reply:
    """The current directory, with a zero at its end; returns the length with that."""
    text = request.process.directory.path.encode("utf-8", "surrogateescape") + b"\0"
    if len(text) > request.word("count"):
        raise CallError(Errno.ERANGE)
    if len(text) > request.room("buffer"):
        raise CallError(Errno.EFAULT)
    return Reply(len(text), {"buffer": text})


def chdir(request: Request) -> Reply:
    """Change the current directory to a path."""
    return _change_directory(request, request.process.find(request.text("path")))


def fchdir(request: Request) -> Reply:
    """Change the current directory to one that is open."""
    return _change_directory(request, request.process.files.get(request.signed("fd")).node)


def stat(request: Request) -> Reply:
    """Stat, lstat, fstat, newfstatat: ``struct stat``."""
    return _status(request, request.process.system.layouts.stat)


def stat64(request: Request) -> Reply:
    """Stat64 and its relatives: ``struct stat64``."""
    return _status(request, request.process.system.layouts.stat64)


def lstat(request: Request) -> Reply:
    """Lstat: a link in the last place is not followed."""
    return _status(request, request.process.system.layouts.stat, follow=False)


def lstat64(request: Request) -> Reply:
    """Lstat64: a link in the last place is not followed."""
    return _status(request, request.process.system.layouts.stat64, follow=False)


def statx(request: Request) -> Reply:
    """Statx: the basic attributes; there are no others."""
    if request.unsigned("mask") & _STATX_RESERVED:
        raise CallError(Errno.EINVAL)
    fields = {**stat_fields(_find(request, allowed=_STATX_FLAGS).status()), "mask": _STATX_BASIC}
    return Reply(0, {"status": STATX.pack(fields)})


def umask(request: Request) -> Reply:
    """Set the file mode creation mask; returns the old one."""
    process = request.process
    old, process.umask = process.umask, request.unsigned("mask") & 0o777
    return Reply(old)


def _above(path: str) -> str:
    """Return the path of the directory that a path's last name is in."""
    return path[: path.rstrip("/").rfind("/") + 1] or "."


def _directory(request: Request) -> int:
    """Return the descriptor where a relative path starts."""
    return request.signed("directory") if request.has("directory") else -100


def _find(request: Request, *, follow: bool = True, allowed: int = _STAT_FLAGS) -> Node:
    """Return what a call is about: a descriptor, or a path with the flags of the ``*at`` calls."""
    process = request.process
    if request.has("fd"):
        return process.files.get(request.signed("fd")).node
    flags = request.unsigned("flags") if request.has("flags") else 0
    if flags & ~allowed:
        raise CallError(Errno.EINVAL)
    directory = _directory(request)
    if flags & _AT_EMPTY_PATH and (request.is_null("path") or not request.data("path")):
        return process.directory if directory == -100 else process.files.get(directory).node
    return process.find(request.text("path"), directory, follow=follow and not flags & _AT_SYMLINK_NOFOLLOW)


def _status(request: Request, layout: Layout, *, follow: bool = True) -> Reply:
    fields = stat_fields(_find(request, follow=follow).status())
    try:
        return Reply(0, {"status": layout.pack(fields)})
    except OverflowError:
        raise CallError(Errno.EOVERFLOW) from None


def _change_directory(request: Request, node: Node) -> Reply:
    if not isinstance(node, Directory):
        raise CallError(Errno.ENOTDIR)
    request.process.directory = node
    return Reply()
