"""What the tests of guests in running topologies share: disks with known content, counts, and typing."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.testing.live import LiveTopology
from iovirt_dist.topology.specs import BlockSpec
from iovirt_dist.topology.vm_files import PACKAGES, Vmm, modules_folder, newest_kernel, vmm_program

KIB = 1024
MIB = 1024 * KIB

UBOOT_X86 = Path("/usr/lib/u-boot/qemu-x86/u-boot.rom")
UBOOT_RISCV_M = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
UBOOT_RISCV_S = Path("/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin")
OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin")
MKFS_EXT4 = Path("/usr/sbin/mkfs.ext4")
MKE2FS, E2FSCK, DEBUGFS = (Path("/usr/sbin") / name for name in ("mke2fs", "e2fsck", "debugfs"))
FIO = Path("/usr/bin/fio")
BLKDISCARD = Path("/usr/sbin/blkdiscard")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
_PROGRAMS = Path(os.environ.get("IOVIRT_PROGRAMS") or _CACHE / "iovirt" / "programs")
BUSYBOX = {name: _PROGRAMS / name / "busybox" for name in ("amd64", "i386", "riscv64")}
"""Unmodified static programs by Debian's name of their architecture, where `.ci/fetch-programs` puts them."""
_PACKAGES = {
    UBOOT_X86: "u-boot-qemu",
    UBOOT_RISCV_M: "u-boot-qemu",
    UBOOT_RISCV_S: "u-boot-qemu",
    OPENSBI: "opensbi",
    **dict.fromkeys((MKFS_EXT4, MKE2FS, E2FSCK, DEBUGFS), "e2fsprogs"),
    FIO: "fio",
    BLKDISCARD: "util-linux",
}
_INSTALL = {file: f"install the Debian package {package}" for file, package in _PACKAGES.items()}
_INSTALL |= dict.fromkeys(BUSYBOX.values(), "run .ci/fetch-programs (Debian package busybox-static)")

PROMPT = r"^=> "
"""U-Boot's; the console is read in multi-line mode."""


def needs(*files: Path) -> list[pytest.MarkDecorator]:
    """Marks of a test module that runs third-party software: where a file is missing, skip and say how to get it."""
    missing = [path for path in files if not path.is_file()]
    reason = "; ".join(f"no {path}: {_INSTALL[path]}" for path in missing)
    return [pytest.mark.firmware, pytest.mark.skipif(bool(missing), reason=reason)]


def needs_vmm(vmm: Vmm) -> pytest.MarkDecorator:
    """Mark of a test that boots a kernel in a VMM: where something is missing, skip and say which packages have it."""
    kernel = newest_kernel() if vmm == "qemu" else None
    there = vmm_program(vmm) is not None and modules_folder(vmm, kernel) is not None and Path("/bin/busybox").is_file()
    packages = ", ".join(dict.fromkeys((*PACKAGES[vmm], "busybox-static")))
    return pytest.mark.skipif(not there, reason=f"install the Debian packages {packages}")


@functools.cache
def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes of which no two sectors are equal."""
    sectors = (hashlib.sha512(b"%d %d" % (seed, number)).digest() * 8 for number in range((length + 511) // 512))
    return b"".join(sectors)[:length]


FILE_BYTES = 300 * KIB + 77


def ext4_image(folder: Path) -> bytes:
    """Make the disk that is read at all three levels: 8 MiB by mkfs.ext4, `pattern(FILE_BYTES)` in /boot/data.bin.

    Raises:
        subprocess.CalledProcessError: mkfs.ext4 fails.
    """
    file, image = folder / "tree" / "boot" / "data.bin", folder / "ext4.img"
    file.parent.mkdir(parents=True)
    file.write_bytes(pattern(FILE_BYTES))
    subprocess.run([MKFS_EXT4, "-q", "-F", "-d", folder / "tree", image, "8M"], check=True, capture_output=True)
    return image.read_bytes()


def data_offset(image: bytes) -> int:
    """Where the data of the file in `ext4_image` begins, in bytes; it is in one piece."""
    return image.index(pattern(FILE_BYTES))


def disk(topology: LiveTopology, name: str = "disk0") -> Path:
    """The image file of a block controller."""
    spec = topology.topology.controller(name)
    assert isinstance(spec, BlockSpec)
    return spec.image


def fill(topology: LiveTopology, content: bytes) -> None:
    """Write the beginning of disk0's image, before anything is started."""
    spec = topology.topology.controller("disk0")
    assert isinstance(spec, BlockSpec)
    with spec.image.open("wb") as image:
        image.write(content)
        image.truncate(spec.size_bytes)


def machine(kind: str, image: str | Path, devices: dict[str, str], **keys: str) -> dict[str, Any]:
    """Return a guest's table."""
    return {"kind": "machine", "machine": kind, "hypervisor": "hv0", "image": str(image), "devices": devices, **keys}


def topology_of(
    guests: dict[str, dict[str, Any]], *, size: str = "16MiB", extents: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the tables of a topology with one hypervisor, a disk and terminals."""
    block: dict[str, Any] = {"kind": "block", "image": "disk0.img", "size": size}
    if extents:
        block["extents"] = extents
    return {"hypervisor": {"hv0": {}}, "controller": {"disk0": block, "tty0": {"kind": "console"}}, "guest": guests}


async def settled(topology: LiveTopology, guest: str) -> dict[str, Any]:
    """Wait until a guest that does nothing any more has reported all its traps; return what the hypervisor says then.

    The bundled OS does nothing any more after `run=...,halt`; otherwise its timer goes on.

    Raises:
        AssertionError: The two sides' counts never become equal.
    """
    status = await topology.hypervisor().wait_status(
        lambda status: (
            status.content["guests"][guest]["state"] in ("halted", "stopped")
            and status.content["guests"][guest]["guest_traps"] == status.content["guests"][guest]["traps"]
        ),
        what=f"equal trap counts of {guest}",
    )
    found: dict[str, Any] = status.content["guests"][guest]
    return found


async def typed(topology: LiveTopology, guest: str, keys: str, expect: str, timeout_s: float = 20.0) -> str:
    """Type into a guest with the command ``iovirt console --expect`` and return what the guest answered.

    Raises:
        AssertionError: The command fails, in particular because the pattern does not appear.
    """
    source = topology.topology.source
    command = ["-m", "iovirt_dist.cli.main", "console", guest, "--file", str(source)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--expect",
        expect,
        "--timeout",
        str(timeout_s),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")},
    )
    output, errors = await process.communicate(keys.encode())
    text = output.decode("utf-8", "replace").replace("\r\n", "\n")
    assert process.returncode == 0, f"typed {keys!r}: {errors.decode()}\n{text}\n{topology.explain()}"
    return text
