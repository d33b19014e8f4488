"""The command line of User-Mode Linux for a guest of ours.

Source: ``linux.uml --help`` of Linux 6.1: ``virtio_uml.device=SOCKET:ID``, with ID as in virtio_ids.h; VIRTIO 1.2,
section 5, "Device Types".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.vm_specs import SOCKET_FOLDER, VmDevice, VmSpec, vm_socket
from iovirt_dist.vmm.command import VmmCommand, VmmFiles

DEVICE_IDS: Final[dict[VmDevice, int]] = {"net": 1, "disk": 2, "virtio_console": 3}

MEMORY_FOLDER: Final = "/dev/shm"  # noqa: S108 - the VMM's own choice, too, if it is a tmpfs; names there are random
"""Where the file is that is the guest's memory, which the gateway maps."""

_PLAIN: Final = re.compile(r"[^\s:\"'\\]+")
"""Paths that are one word of a kernel's command line, and end where the device's number begins."""


def uml_folder(run_dir: Path, guest: str) -> Path:
    """Folder of the files that User-Mode Linux makes for its management."""
    return run_dir / SOCKET_FOLDER / f"{guest}.uml"


def uml_command(spec: VmSpec, run_dir: Path, files: VmmFiles) -> VmmCommand:
    """Return how to start User-Mode Linux for a guest.

    Args:
        spec: The guest.
        run_dir: Where the sockets are.
        files: What it runs.

    Raises:
        ConfigError: The path of a file cannot be said on its command line.
    """
    folder = uml_folder(run_dir, spec.name)
    words = [str(files.program), f"mem={spec.memory_bytes >> 20}M", "con0=fd:0,fd:1", "con=null", "ssl=null"]
    words += [f"uml_dir={_word(spec, folder)}", "umid=vm"]
    words += _devices(spec, run_dir)
    words += [f"initrd={_word(spec, files.initrd)}"] if files.initrd else []
    words += spec.command_line.split()
    return VmmCommand((*words, *spec.arguments), {"TMPDIR": MEMORY_FOLDER}, (folder,))


def _devices(spec: VmSpec, run_dir: Path) -> Iterator[str]:
    for device in spec.devices:
        socket = _word(spec, vm_socket(run_dir, spec.name, device))
        yield f"virtio_uml.device={socket}:{DEVICE_IDS[device]}"


def _word(spec: VmSpec, path: Path) -> str:
    if not _PLAIN.fullmatch(str(path)):
        what = f"User-Mode Linux cannot be told of {path}"
        raise ConfigError(what, f"guest {spec.name}", "use a path without spaces, colons, quotes and backslashes")
    return str(path)
