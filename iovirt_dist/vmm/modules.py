"""Kernel modules with what they depend on, in the order in which they can be loaded.

Source: modules.dep(5): a line for each module, behind its colon all that it depends on, what is to be loaded first at
the end; depmod(8): ``modules.builtin`` names those that are part of the kernel.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from iovirt_dist.errors import ImageError


class KernelModules:
    """The modules of one kernel.

    Args:
        folder: Holds ``modules.dep``.
        package: Debian package that has them, for messages.

    Raises:
        ImageError: They are not there.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self._folder = folder
        self._package = package
        try:
            lines = (folder / "modules.dep").read_text("utf-8").splitlines()
        except OSError as error:
            raise ImageError(f"no kernel modules: {error.strerror}", str(folder), f"install {package}") from None
        self._needs = {path: needed.split() for path, _, needed in (line.partition(":") for line in lines) if path}
        self._paths = {_name(path): path for path in self._needs}
        builtin = folder / "modules.builtin"
        self._builtin = {_name(line) for line in _lines(builtin)}

    def order(self, names: Iterable[str]) -> list[str]:
        """Return paths below the folder of modules and their dependencies, each behind what it depends on.

        Args:
            names: Such as ``virtio_blk``; what is part of the kernel needs no loading and is left out.

        Raises:
            ImageError: The kernel has no such module.
        """
        found: dict[str, None] = {}
        for name in names:
            path = self._paths.get(_name(name))
            if path is not None:
                found.update(dict.fromkeys((*reversed(self._needs[path]), path)))
            elif _name(name) not in self._builtin:
                what = f"the kernel has no module '{name}'"
                raise ImageError(what, str(self._folder), f"install {self._package}")
        return list(found)

    def read(self, path: str) -> bytes:
        """Return a module, decompressed.

        Args:
            path: As `order` has it.

        Raises:
            ImageError: It cannot be read, or is compressed in a way that Python cannot undo.
        """
        file = self._folder / path
        try:
            data = file.read_bytes()
            if file.suffix == ".xz":
                return lzma.decompress(data)
            if file.suffix == ".gz":
                return gzip.decompress(data)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ImageError(f"cannot read a kernel module: {error}", str(file), f"install {self._package}") from None
        if file.suffix != ".ko":
            what = "a kernel module is compressed in an unknown way"
            raise ImageError(what, str(file), "use .ko, .ko.xz or .ko.gz")
        return data


def plain_name(path: str) -> str:
    """Name of a module's file without its compression: ``virtio_blk.ko``."""
    name = PurePosixPath(path).name
    return name[: name.index(".ko") + len(".ko")]


def _name(path: str) -> str:
    """A module's name by its path; dashes and underscores are one, as for modprobe(8)."""
    return PurePosixPath(path.strip()).name.partition(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.is_file() else []
