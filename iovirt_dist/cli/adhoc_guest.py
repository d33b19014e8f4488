"""What the options of ``iovirt run`` say of its guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from iovirt_dist.cli.adhoc_errors import WHERE
from iovirt_dist.cli.app import Text
from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.vm_files import Vmm

_OPTIONS_OF: Final = {
    "machine": ("machine", "image_format", "payload", "command_line", "level"),
    "program": ("arguments", "environment", "volumes", "abi"),
    "script": ("parameters",),
    "vm": ("kernel", "initrd", "append", "cpus", "net"),
}
"""Options that only one kind of guest has."""


def _again(name: str, short: str) -> Parameter:
    """An option that may be given again."""
    return Parameter(name=(f"--{name}", f"-{short}"), negative=(), show_default=False)


def _flag() -> Parameter:
    """An option without a value."""
    return Parameter(negative=(), show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdHocGuest:
    """A guest by its options; what is empty or None is the topology's default.

    Parameters
    ----------
    image
        Machine: bundled:NAME, or a file. Default: bundled:guestos.
    program
        Static ELF file. It sees the disk as /dev/vda.
    script
        FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.
    machine
        Machine: pc (x86, the default) or virt (riscv64).
    image_format
        Machine: what the image is. Default: auto, which looks at it.
    payload
        Machine: second image, which the first one starts.
    command_line
        Machine: for the image's kernel.
    level
        Machine: where its disk is intercepted. Default: operation on pc, driver on virt.
    environment
        Program: NAME=VALUE of its environment; may be given again.
    volumes
        Program: HERE:THERE, a file or folder and where it sees that, read-only; may be given again.
    abi
        Program: operating system and architecture. Default: what the file says.
    parameters
        Script: NAME=VALUE, as in a topology; may be given again.
    qemu
        Have QEMU run a Linux kernel (TCG, x86-64).
    uml
        Have User-Mode Linux run, which is a kernel that is a program.
    kernel
        Virtual machine: its kernel. Default: the newest of linux-image-cloud-amd64, or of user-mode-linux.
    initrd
        Virtual machine: initial RAM disk. Default: one with busybox and drivers, whose shell is on the console.
    append
        Virtual machine: for the kernel's command line.
    cpus
        Virtual machine: its CPUs.
    net
        Virtual machine: have a network card, at a switch with 10.0.0.1 (ARP, ping, DHCP).
    memory
        RAM size. Default: 32MiB, 64MiB for a program, 256MiB for a virtual machine.
    disk
        Raw image file; without one the guest has no disk.
    disk_size
        Size of a disk image that does not exist yet.
    rng
        Have a source of entropy.

    Arguments:
        arguments: Program: its command line, without its name.
        external: Virtual machine: somebody else starts it, with a console of its own.
    """

    image: Text = ""
    program: Text = ""
    script: Text = ""
    machine: Annotated[Literal["pc", "virt"] | None, Parameter(show_default=False)] = None
    image_format: Annotated[
        Literal["auto", "elf", "multiboot", "flat", "rom"] | None, Parameter(name="--format", show_default=False)
    ] = None
    payload: Text = ""
    command_line: Text = ""
    level: Annotated[Literal["operation", "driver", "syscall"] | None, Parameter(show_default=False)] = None
    environment: Annotated[tuple[str, ...], _again("env", "e")] = ()
    volumes: Annotated[tuple[str, ...], _again("volume", "v")] = ()
    abi: Text = ""
    parameters: Annotated[tuple[str, ...], _again("parameter", "p")] = ()
    qemu: Annotated[bool, _flag()] = False
    uml: Annotated[bool, _flag()] = False
    kernel: Text = ""
    initrd: Text = ""
    append: Text = ""
    cpus: Annotated[int | None, Parameter(show_default=False)] = None
    net: Annotated[bool, _flag()] = False
    memory: Text = ""
    disk: Text = ""
    disk_size: Text = ""
    rng: Annotated[bool, _flag()] = False
    arguments: Annotated[tuple[str, ...], Parameter(parse=False)] = ()
    external: Annotated[bool, Parameter(parse=False)] = False

    @property
    def kind(self) -> str:
        """``machine``, ``program``, ``script`` or ``vm``.

        Raises:
            ConfigError: More than one is asked for, or an option is not of this kind.
        """
        named = [name for name in ("image", "program", "script", "qemu", "uml") if getattr(self, name)]
        if len(named) > 1:
            raise ConfigError(f"--{named[0]} and --{named[1]} are two guests", WHERE, "run one of them")
        kind = {"image": "machine", "qemu": "vm", "uml": "vm"}.get(named[0], named[0]) if named else "machine"
        for other, options in _OPTIONS_OF.items():
            given = [option for option in options if other != kind and getattr(self, option)]
            if given and given[0] == "arguments":
                raise ConfigError(f"a {kind} takes no arguments", WHERE, "name a program with --program FILE")
            if given:
                name = {"image_format": "format", "environment": "env", "volumes": "volume", "parameters": "parameter"}
                option = name.get(given[0], given[0]).replace("_", "-")
                raise ConfigError(f"--{option} is for a {other}, not for a {kind}", WHERE)
        return kind

    @property
    def vmm(self) -> Vmm:
        """Which VMM runs a virtual machine."""
        return "qemu" if self.qemu else "uml"
