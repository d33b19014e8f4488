"""What of virtual machines is installed: VMMs, kernels and their modules, and which Debian package has what."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final, Literal, NamedTuple

Vmm = Literal["qemu", "uml"]
"""VMMs that we start."""


class Packages(NamedTuple):
    """Debian packages of one VMM.

    Attributes:
        program: Has the VMM.
        kernel: Has the kernel that it runs.
    """

    program: str
    kernel: str


PACKAGES: Final[dict[Vmm, Packages]] = {
    "qemu": Packages("qemu-system-x86", "linux-image-cloud-amd64"),
    "uml": Packages("user-mode-linux", "user-mode-linux"),
}

PROGRAMS: Final[dict[Vmm, str]] = {"qemu": "qemu-system-x86_64", "uml": "linux.uml"}
"""The VMMs' names on PATH; that of User-Mode Linux is its kernel, too."""

ROOT: Final = Path("/")

_KERNEL_GLOB: Final = "boot/vmlinuz-*-cloud-amd64"
_MODULES: Final = {"qemu": "lib/modules", "uml": "usr/lib/uml/modules"}
_NUMBER: Final = re.compile(r"[0-9]+")


def vmm_program(vmm: Vmm) -> Path | None:
    """Path of a VMM; None if it is not installed."""
    found = shutil.which(PROGRAMS[vmm])
    return Path(found) if found else None


def newest_kernel(root: Path = ROOT) -> Path | None:
    """Path of the newest kernel of Debian's package for virtual machines; None if there is none.

    Args:
        root: Where the file system begins.
    """
    return max(root.glob(_KERNEL_GLOB), key=lambda path: _version(path.name), default=None)


def modules_folder(vmm: Vmm, kernel: Path | None, root: Path = ROOT) -> Path | None:
    """Path of the folder with the modules of a kernel; None if there is none.

    Args:
        vmm: What runs the kernel.
        kernel: ``vmlinuz-RELEASE``; of User-Mode Linux None for the one that is installed.
        root: Where the file system begins.
    """
    folder = root / _MODULES[vmm]
    if vmm == "qemu":
        release = kernel.name.partition("-")[2] if kernel is not None else ""
        found = folder / release
        return found if release and (found / "modules.dep").is_file() else None
    installed = [path.parent for path in folder.glob("*/modules.dep")]
    return max(installed, key=lambda path: _version(path.name), default=None)


def _version(name: str) -> tuple[int, ...]:
    """The numbers of a file's name, by which versions are ordered."""
    return tuple(int(number) for number in _NUMBER.findall(name))
