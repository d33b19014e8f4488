"""The bundled guest OS on machines that are not ours: QEMU's `pc` and `microvm`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from iovirt_dist.images import guestos_path

QEMU: Final = "qemu-system-i386"
DISK_BYTES: Final = 2 * 1024 * 1024
NEEDS_QEMU: Final = pytest.mark.skipif(
    shutil.which(QEMU) is None, reason=f"no {QEMU}: install the Debian package qemu-system-x86"
)
DISK_WINDOW: Final = "virtio_mmio.device=512@0xfeb00e00:12"
"""QEMU gives the first device of `microvm` the last of its eight transports, which are 512 bytes apart."""
SECOND_WINDOW: Final = "virtio_mmio.device=512@0xfeb00c00:11"

_COMMON: Final = ["-accel", "tcg", "-cpu", "486", "-m", "16", "-no-reboot"]
_CONSOLE: Final = ["-display", "none", "-serial", "stdio", "-monitor", "none"]
_MICROVM: Final = "microvm,acpi=off,pic=on,pit=on,rtc=on,isa-serial=on"


def new_disk(path: Path) -> Path:
    """Write a disk of which no two sectors are equal."""
    path.write_bytes(
        b"".join(hashlib.sha512(bytes([i % 256, i // 256])).digest() * 8 for i in range(DISK_BYTES // 512))
    )
    return path


def boot_pc(options: str, disk: Path | None = None, *, typed: dict[str, str] | None = None) -> list[str]:
    """Run the guest with an ATA disk until it halts, panics or resets; return its console lines.

    `typed` says what to type after which line.
    """
    devices = ["-drive", f"file={disk},format=raw,if=ide"] if disk is not None else []
    return _run(["-M", "pc", *devices], options, typed or {})


def boot_microvm(options: str, drive: str, disk_properties: str = "") -> list[str]:
    """Run the guest with a virtio disk and a virtio entropy device; return its console lines.

    Args:
        options: Kernel command line; `DISK_WINDOW` and `SECOND_WINDOW` announce the two devices.
        drive: What QEMU's -drive takes, such as "file=disk.img,format=raw".
        disk_properties: More of virtio-blk-device's properties, each with a comma before it.
    """
    machine = ["-M", _MICROVM, "-global", "virtio-mmio.force-legacy=false", "-drive", f"id=disk,if=none,{drive}"]
    devices = ["-device", f"virtio-blk-device,drive=disk{disk_properties}", "-device", "virtio-rng-device"]
    return _run([*machine, *devices], options, {})


def _run(machine: list[str], options: str, typed: dict[str, str]) -> list[str]:
    command = [QEMU, *_COMMON, *_CONSOLE, *machine, "-kernel", str(guestos_path()), "-append", options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        lines = []
        try:
            for line in qemu.stdout:
                lines.append(line.rstrip())
                qemu.stdin.write(typed.get(line.rstrip(), ""))
                qemu.stdin.flush()
                if line.startswith(("kernel: halted", "kernel panic:")):
                    break
        finally:
            qemu.kill()
    return lines
