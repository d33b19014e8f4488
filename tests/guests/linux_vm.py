"""What the tests of real kernels share: initial RAM disks, topologies, and a shell that reads commands from a console.

The shell echoes nothing and edits no lines, so what the console shows is what commands print. Each command's end is
marked by a number that no earlier one had: what a killed process loses of the console is asked for again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iovirt_dist.testing.live import LiveTopology
from iovirt_dist.topology.vm_files import Vmm
from iovirt_dist.vmm.initramfs import InitramfsPlan, kernel_modules, write_initramfs

BOOT_S = 240.0
"""A cloud kernel is in user space after 4 s under QEMU's translator; this is for a machine with much else to do."""

COMMAND_S = 120.0

READY = r"^shell is ready$"

LOOP = """\
stty -echo
echo 1 > /proc/sys/kernel/printk
echo shell is ready
while read -r number line; do
  echo "[$number"
  command eval "$line" 2>&1
  echo "[$number=$?]"
done
"""
"""Script of the initial RAM disk."""


def write_initrd(path: Path, vmm: Vmm, programs: Sequence[Path] = (), files: Mapping[str, Path] | None = None) -> Path:
    """Write an initial RAM disk whose script is `LOOP`, for the kernel that is installed; returns its path.

    Raises:
        ImageError: Something is missing.
    """
    modules = kernel_modules(vmm, None)
    with path.open("wb") as file:
        write_initramfs(
            file, InitramfsPlan(vmm=vmm, modules=modules, programs=tuple(programs), files=files or {}, script=LOOP)
        )
    return path


def vm(vmm: Vmm, initrd: Path, devices: Mapping[str, str], **keys: Any) -> dict[str, Any]:
    """Return the table of a guest with a serial console."""
    return {
        "kind": "vm",
        "vmm": vmm,
        "hypervisor": "hv0",
        "initrd": str(initrd),
        "command_line": "quiet panic=-1",
        "devices": {"console": "tty0", **devices},
        **keys,
    }


def tables(guests: Mapping[str, Any], **controllers: Any) -> dict[str, Any]:
    """Return the tables of a topology with one hypervisor, terminals and short leases."""
    return {
        "topology": {"lease": "1s"},
        "hypervisor": {"hv0": {}},
        "controller": {"tty0": {"kind": "console"}, **controllers},
        "guest": dict(guests),
    }


class Shell:
    """The shell of one guest.

    Args:
        topology: Where the guest is.
        guest: Its name.
    """

    _numbers = itertools.count(1)

    def __init__(self, topology: LiveTopology, guest: str) -> None:
        self._console = topology.console(guest)

    async def ready(self, timeout_s: float = BOOT_S) -> None:
        """Wait until the kernel has booted; raises AssertionError if it does not."""
        await self._console.expect(READY, timeout_s)

    def say(self, command: str) -> int:
        """Have a command run and do not wait for its end; returns its number."""
        number = next(self._numbers)
        self._console.send_line(f"{number} {command}")
        return number

    async def run(self, command: str, timeout_s: float = COMMAND_S) -> str:
        """Run a command; returns what it printed.

        Raises:
            AssertionError: Its exit status is not 0, or it does not end.
        """
        status, output = await self.status(command, timeout_s)
        assert status == 0, f"{command!r} ended with status {status}:\n{output}"
        return output

    async def status(self, command: str, timeout_s: float = COMMAND_S) -> tuple[int, str]:
        """Run a command; returns its exit status and what it printed, errors included.

        Raises:
            AssertionError: It does not end.
        """
        number = self.say(command)
        ended = await self._console.expect(rf"^\[{number}\n(?s:(.*?))\[{number}=(\d+)\]$", timeout_s)
        return int(ended[2]), ended[1]
