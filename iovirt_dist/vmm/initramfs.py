"""Initial RAM disks for unmodified Linux kernels: busybox, virtio modules, programs with their libraries, a script.

The kernel starts ``/init``, which mounts what a shell expects, loads the modules, and runs the script or, without one,
a shell with job control on the console. When that ends the machine is switched off. A word that busybox knows is taken
by busybox: programs of the same name are to be called by their paths.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from iovirt_dist.errors import ImageError
from iovirt_dist.topology.vm_files import PACKAGES, Vmm, modules_folder, newest_kernel
from iovirt_dist.vmm.cpio import CpioWriter
from iovirt_dist.vmm.libraries import is_elf, shared_libraries
from iovirt_dist.vmm.modules import KernelModules, plain_name

BUSYBOX: Final = Path("/bin/busybox")
"""Static, from Debian's package busybox-static."""

MODULES: Final[dict[Vmm, tuple[str, ...]]] = {
    "qemu": ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4"),
    "uml": ("virtio_blk", "virtio_net", "virtio_console", "ext4"),
}
"""Drivers of our devices, those that a VMM can have, and a file system for the disk."""

SCRIPT: Final = "/script"
_MODULES_FOLDER: Final = "/lib/modules"

_HEAD: Final = """\
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=vt100
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /bin /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
ip link set lo up
"""

_NETWORK: Final = "[ -e /sys/class/net/eth0 ] && ip link set eth0 up\n"

_SCRIPT_TAIL: Final = f"""\
sh {SCRIPT}
echo "script ended with status $?"
poweroff -f
"""

_SHELL_TAIL: Final = """\
setsid cttyhack sh
poweroff -f
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsPlan:
    """What is to be in an initial RAM disk.

    Attributes:
        vmm: What runs the kernel; decides which modules there are.
        modules: Folder of the kernel's modules.
        programs: Programs that go to ``/bin``, with their libraries.
        files: More files: path there to the path here; programs among them get their libraries, too.
        script: For the shell; None for a shell to type at.
        busybox: The static program that is everything else.
    """

    vmm: Vmm
    modules: Path
    programs: tuple[Path, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    script: str | None = None
    busybox: Path = BUSYBOX


def kernel_modules(vmm: Vmm, kernel: Path | None) -> Path:
    """Find the modules of a kernel.

    Args:
        vmm: What runs it.
        kernel: None for the newest that is installed.

    Raises:
        ImageError: They are not there.
    """
    if kernel is not None and not kernel.is_file():
        raise ImageError("no such kernel", str(kernel), "correct its path")
    image = newest_kernel() if kernel is None and vmm == "qemu" else kernel
    folder = modules_folder(vmm, image)
    if folder is None:
        what = f"no modules of this kernel are installed, which {vmm} needs for its devices"
        fix = f"install {PACKAGES[vmm].kernel}, or name an initrd that has them"
        raise ImageError(what, str(image or PACKAGES[vmm].kernel), fix)
    return folder


def write_initramfs(file: BinaryIO, plan: InitramfsPlan) -> None:
    """Write an initial RAM disk.

    Args:
        file: Where to; the caller closes it.
        plan: What is in it.

    Raises:
        ImageError: Something that it needs is missing.
    """
    archive = CpioWriter(file)
    archive.add_device("/dev/console", 5, 1)
    archive.add_device("/dev/null", 1, 3, 0o666)
    archive.add_file("/bin/busybox", _busybox(plan.busybox), 0o755)
    archive.add_link("/bin/sh", "busybox")
    modules = KernelModules(plan.modules, PACKAGES[plan.vmm].kernel)
    order = modules.order(MODULES[plan.vmm])
    for path in order:
        archive.add_file(f"{_MODULES_FOLDER}/{plain_name(path)}", modules.read(path))
    for there, here in _files(plan).items():
        archive.add_file(there, _read(here), 0o755 if here.stat().st_mode & 0o111 else 0o644)
    if plan.script is not None:
        archive.add_file(SCRIPT, plan.script.encode())
    archive.add_file("/init", init_text(order, script=plan.script is not None).encode(), 0o755)
    archive.finish()


def init_text(modules: list[str], *, script: bool) -> str:
    """Return what ``/init`` is: a script for busybox.

    Args:
        modules: Paths of the modules to load, in order.
        script: Whether there is a script to run.
    """
    loads = "".join(f"insmod {_MODULES_FOLDER}/{plain_name(path)}\n" for path in modules)
    return _HEAD + loads + _NETWORK + (_SCRIPT_TAIL if script else _SHELL_TAIL)


def _files(plan: InitramfsPlan) -> dict[str, Path]:
    """Where everything goes that is copied as it is; libraries keep their places, where the loader looks."""
    wanted = {f"/bin/{program.name}": program for program in plan.programs}
    wanted |= {posixpath.normpath(there): here for there, here in plan.files.items()}
    found: dict[str, Path] = {}
    for there, here in wanted.items():
        if not here.is_file():
            raise ImageError("no such file", str(here), "correct its path")
        found[there] = here
        if is_elf(here):
            found |= {str(library): library for library in shared_libraries(here)}
    return found


def _busybox(path: Path) -> bytes:
    if not path.is_file() or (is_elf(path) and shared_libraries(path)):
        raise ImageError("no static busybox", str(path), "install busybox-static")
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read it: {error.strerror}", str(path)) from None
