"""How a guest's VMM is started: its command line and what it needs around it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iovirt_dist.errors import ImageError
from iovirt_dist.topology.vm_files import PACKAGES, newest_kernel
from iovirt_dist.topology.vm_specs import VmSpec


@dataclass(frozen=True, slots=True)
class VmmFiles:
    """What a VMM runs.

    Attributes:
        program: The VMM itself.
        kernel: The guest's kernel; of User-Mode Linux it is the program.
        initrd: The initial RAM disk; None for none.
    """

    program: Path
    kernel: Path
    initrd: Path | None


@dataclass(frozen=True, slots=True)
class VmmCommand:
    """A VMM's command line. Its console is stdin and stdout.

    Attributes:
        argv: The program and its arguments.
        environment: Variables that it needs besides those that are there.
        folders: Folders that must exist, and are the VMM's alone.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    def __str__(self) -> str:
        """As a shell takes it."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*words, *map(shlex.quote, self.argv)])


def find_files(spec: VmSpec) -> VmmFiles:
    """Find what a guest's VMM runs, on this machine.

    Raises:
        ImageError: Something is missing; it names the Debian package.
    """
    assert spec.vmm != "external", "which we do not start"
    for error in spec.missing_files():
        raise error
    program = spec.program
    assert program is not None, "else it is missing"
    if spec.vmm == "uml":
        return VmmFiles(program, program, spec.initrd)
    kernel = spec.kernel or newest_kernel()
    if kernel is None:  # removed since
        raise ImageError("no kernel is installed", f"guest {spec.name}", f"install {PACKAGES['qemu'].kernel}")
    return VmmFiles(program, kernel, spec.initrd)
