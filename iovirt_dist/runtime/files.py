"""The files that a program is to see, read from the host."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from iovirt_dist.errors import ConfigError
from iovirt_dist.wire.codec import Buffer

MAX_FILES = 4096
"""Most files of one guest: a whole root file system is no small tree."""


def read_files(files: Mapping[str, Path]) -> dict[str, Buffer]:
    """Return the content of files and of all regular files in folders, by their paths as the program sees them.

    The content is mapped, not read: it costs memory once it is used. Links are followed; what is neither file nor
    folder is left out.

    Args:
        files: Absolute path there to path of a file or folder here.

    Raises:
        ConfigError: A file cannot be read, or there are too many.
    """
    found: dict[str, Buffer] = {}
    for path, source in files.items():
        for there, here in _walk(path, source):
            found[there] = _content(here)
            if len(found) > MAX_FILES:
                raise ConfigError(f"more than {MAX_FILES} files", str(source), "name the files that are needed")
    return found


def _walk(path: str, source: Path) -> Iterator[tuple[str, Path]]:
    if source.is_file():
        yield path, source
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            here = Path(folder, name)
            if here.is_file():
                yield str(PurePosixPath(path, here.relative_to(source).as_posix())), here


def _content(path: Path) -> Buffer:
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(path)) from None
