"""The folder that the built-in host's TFTP server reads from: nothing outside of it, regular files only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from iovirt_dist.controllers.net.tftp import CloseFile, FileAccess, FileOpened, FileOutcome, FileRead, OpenFile


class FileFolder:
    """Opens and reads files of a folder.

    Args:
        folder: Which; it may be made later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}

    def perform(self, action: FileAccess) -> FileOutcome | None:
        """Do an action; errors are its outcome."""
        try:
            if isinstance(action, OpenFile):
                return FileOpened(action.file, self._open(action))
            if isinstance(action, CloseFile):
                fd = self._files.pop(action.file, None)
                if fd is not None:
                    os.close(fd)
                return None
            return FileRead(action.file, os.pread(self._files.get(action.file, -1), action.length, action.offset))
        except OSError as error:
            number = error.errno or errno.EIO
            opening = isinstance(action, OpenFile)
            return FileOpened(action.file, 0, number) if opening else FileRead(action.file, b"", number)

    def close(self) -> None:
        """Close all files."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def _open(self, action: OpenFile) -> int:
        """Open a file; returns its size in bytes.

        Raises:
            OSError: It cannot be opened, is no regular file, or is outside of the folder.
        """
        if "\0" in action.name:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        folder = Path(os.path.realpath(self._folder))
        path = Path(os.path.realpath(folder / action.name.lstrip("/")))
        if not path.is_relative_to(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # not following a link that took the file's place since, nor waiting for a writer of a FIFO
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._files[action.file] = fd
        return status.st_size
