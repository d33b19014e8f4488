"""Checks of endpoint addresses, and sole ownership of an ipc socket file.

ZeroMQ takes over the socket file of a process that still listens, without a word: its ipc bind unlinks first. So a
lock (flock(2)) on a file beside the socket says who owns the address; the kernel drops it with its holder, however that
ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
from pathlib import Path

from iovirt_dist.errors import EndpointError

MAX_IPC_PATH_BYTES = 107
"""sun_path holds 108 bytes with the final zero (unix(7))."""
_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_.*-]+):(?P<port>\*|[0-9]{1,5})")
_FORM = "use ipc:///DIRECTORY/NAME.sock or tcp://HOST:PORT"


def ipc_path(endpoint: str) -> Path | None:
    """Path of an ipc address; None for any other."""
    return Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None


def check_endpoint(endpoint: str, *, listening: bool) -> None:
    """Check the form of an address.

    Args:
        endpoint: ``ipc://PATH`` or ``tcp://HOST:PORT``; port ``*`` (or 0) is any free port, for listening only.
        listening: Whether it is to be listened at.

    Raises:
        EndpointError: It cannot be an address.
    """
    path = ipc_path(endpoint)
    if path is not None:
        _check_path(endpoint, endpoint.removeprefix("ipc://"))
        return
    match = _TCP.fullmatch(endpoint)
    if match is None:
        raise EndpointError("is no address", endpoint or "(empty)", _FORM)
    host, port = match["host"], match["port"]
    if port != "*" and int(port) > 65535:
        raise EndpointError("port is above 65535", endpoint, _FORM)
    if not listening and (port in {"*", "0"} or host == "*"):
        raise EndpointError("names no single peer to dial", endpoint, "give host and port")


def _check_path(endpoint: str, text: str) -> None:
    if not text or text.endswith("/") or "\0" in text:
        raise EndpointError("names no socket file", endpoint.replace("\0", "\\0"), _FORM)
    if text.startswith("@"):
        raise EndpointError("abstract sockets have no permissions", endpoint, "use a path in a directory of mode 0700")
    size = len(os.fsencode(text))
    if size > MAX_IPC_PATH_BYTES:
        raise EndpointError(
            f"path has {size} bytes, at most {MAX_IPC_PATH_BYTES}", endpoint, "use a shorter run directory"
        )


class IpcClaim:
    """Sole ownership of a socket file, from construction to `release`.

    Args:
        endpoint: A checked ipc address.

    Raises:
        EndpointError: The directory is not ours alone or cannot be made, a live process listens at the address, or
            another kind of file is in the way.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._path = Path(endpoint.removeprefix("ipc://"))
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        self._own_directory()
        self._fd = self._lock()
        try:
            self._clear()
        except EndpointError:
            self._unlock()
            raise

    def release(self) -> None:
        """Remove socket and lock file. Twice is harmless."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self._unlock()

    def _own_directory(self) -> None:
        """Make the directory with mode 0700, or check that nobody else can put a socket there."""
        directory = self._path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = directory.stat()
        except OSError as error:
            raise EndpointError(f"directory cannot be made: {error.strerror}", self._endpoint, "use another") from None
        if status.st_uid != os.geteuid():
            raise EndpointError(
                f"directory {directory} belongs to user {status.st_uid}", self._endpoint, "use your own"
            )
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise EndpointError(f"directory {directory} has mode {mode:04o}", self._endpoint, f"chmod 700 {directory}")

    def _lock(self) -> int:
        """Take the lock; again if its file was removed by its last holder between our opening and locking it."""
        while True:
            try:
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise EndpointError(f"no lock file: {error.strerror}", self._endpoint, "check the directory") from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise _in_use(self._endpoint, f"by process {holder}") from None
            try:
                if os.fstat(fd).st_ino == self._lock_path.stat().st_ino:
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    return fd
            except FileNotFoundError:
                pass
            os.close(fd)

    def _clear(self) -> None:
        """Remove the socket file that a dead process left; never one that is listened at."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise EndpointError("a file that is no socket is in the way", self._endpoint, f"remove {self._path}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                self._path.unlink(missing_ok=True)
                return
            except BlockingIOError:
                pass
        raise _in_use(self._endpoint, "by a process that takes no lock")

    def _unlock(self) -> None:
        self._lock_path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def _in_use(endpoint: str, whom: str) -> EndpointError:
    return EndpointError(f"address is in use {whom}", endpoint, "stop it or choose another address")
