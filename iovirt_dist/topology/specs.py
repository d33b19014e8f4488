"""The checked topology: what every process needs to know, with absolute paths and full addresses.

These dataclasses are the result of `iovirt_dist.topology.load.load_topology`; nothing in them needs another check,
except that files may be absent (`Topology.missing_images`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal, NamedTuple

from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.ids import GuestName, ProcessName

Kind = Literal["hypervisor", "block", "console", "guest"]
"""Process types: one entry point ``services/KIND.py`` and one Procfile line each."""

KINDS: Final[tuple[Kind, ...]] = ("block", "console", "hypervisor", "guest")
"""In starting order; stopping goes the other way, so that no request loses its server."""

Restart = Literal["on-failure", "always", "never"]
"""What supervision does when a process ends; controllers and hypervisors are always restarted."""


class ProcessSpec(NamedTuple):
    """How to start one process.

    Attributes:
        name: Unique name in the topology.
        kind: Process type.
        argv: Command with the interpreter; the environment must hold IOVIRT_TOPOLOGY if the topology has a file.
        restart: Supervision policy.
    """

    name: ProcessName
    kind: Kind
    argv: tuple[str, ...]
    restart: Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorSpec:
    """One hypervisor process; guests connect to its endpoint."""

    kind: ClassVar[Kind] = "hypervisor"
    name: ProcessName
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtentSpec:
    """A byte range of a block controller's image, presented as one virtual disk.

    Attributes:
        name: Unique in its controller.
        offset_bytes: Start in the image, a multiple of 512.
        size_bytes: Length, a positive multiple of 512.
        read_only: Writes are refused by the controller.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    read_only: bool

    @property
    def end_bytes(self) -> int:
        """First byte behind the extent."""
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One block controller process.

    Attributes:
        name: Unique in the topology.
        endpoint: Where it listens for hypervisors.
        image: Absolute path of the raw image file.
        size_bytes: Size of the image; the file is created sparse if absent and must be at least this long otherwise.
        write_through: An acknowledged write is on stable storage.
        read_only: The whole image is opened read-only.
        extents: Virtual disks, at least one, by ascending offset.
    """

    kind: ClassVar[Kind] = "block"
    name: ProcessName
    endpoint: str
    image: Path
    size_bytes: int
    write_through: bool
    read_only: bool
    extents: tuple[ExtentSpec, ...]

    def extent(self, name: str) -> ExtentSpec:
        """Return the extent of that name; the topology's references are checked, so it exists."""
        return next(extent for extent in self.extents if extent.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSpec:
    """One console controller process: a terminal per guest."""

    kind: ClassVar[Kind] = "console"
    name: ProcessName
    endpoint: str


class DiskAttachment(NamedTuple):
    """The extent behind a guest's disk.

    Attributes:
        controller: Name of the block controller.
        extent: Which range, and whether writes are allowed.
    """

    controller: ProcessName
    extent: ExtentSpec


class ConsoleAttachment(NamedTuple):
    """The terminal behind a guest's serial port.

    Attributes:
        controller: Name of the console controller.
        terminal: The terminal's name there: the guest's.
    """

    controller: ProcessName
    terminal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A guest that is machine code; one per replica.

    Attributes:
        name: Unique in the topology.
        hypervisor: Name of the one hypervisor that this guest talks to.
        restart: Supervision policy.
        machine: ``pc`` (x86) or ``virt`` (riscv64).
        memory_bytes: RAM size, a multiple of 4 KiB.
        image: Absolute path of the image that runs first.
        image_name: As written, for people: ``bundled:guestos`` or a path.
        image_format: ``auto`` looks at the file.
        payload: Absolute path of the image that the first one starts; None for none.
        command_line: For the image's kernel; may be empty.
        prefetch: Whether data port reads may come ahead of the INs that ask for them.
        disk: What stands behind its disk; None for no disk.
        console: What stands behind its serial port; None for an unconnected port.
    """

    kind: ClassVar[Kind] = "guest"
    name: GuestName
    hypervisor: ProcessName
    restart: Restart
    machine: Literal["pc", "virt"]
    memory_bytes: int
    image: Path
    image_name: str
    image_format: Literal["auto", "elf", "multiboot", "flat", "rom"]
    payload: Path | None
    command_line: str
    prefetch: bool
    disk: DiskAttachment | None = None
    console: ConsoleAttachment | None = None

    @property
    def controllers(self) -> tuple[ProcessName, ...]:
        """The controllers that this guest's requests reach."""
        return tuple(attached.controller for attached in (self.disk, self.console) if attached is not None)


ControllerSpec = BlockSpec | ConsoleSpec
AnySpec = HypervisorSpec | BlockSpec | ConsoleSpec | MachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything that one topology file says.

    Attributes:
        name: The topology's name.
        source: Absolute path of the file; None for the built-in default.
        run_dir: Absolute path of the folder of sockets, logs and status files.
        lease_ns: A peer that is silent for this long counts as gone.
        hypervisors: By name, in the file's order; so are the others.
        controllers: By name.
        guests: By name, replicas expanded.
    """

    name: str
    source: Path | None
    run_dir: Path
    lease_ns: int
    hypervisors: dict[ProcessName, HypervisorSpec]
    controllers: dict[ProcessName, ControllerSpec]
    guests: dict[GuestName, MachineSpec]
    label: str = field(default="built-in topology")

    def specs(self) -> list[AnySpec]:
        """Every process's spec in starting order: controllers, hypervisors, guests."""
        return [*self.controllers.values(), *self.hypervisors.values(), *self.guests.values()]

    def processes(self) -> list[ProcessSpec]:
        """How to start every process, in starting order."""
        result: list[ProcessSpec] = []
        for spec in self.specs():
            # -P: a folder "services" in the user's current folder is not ours
            argv = (sys.executable, "-P", "-m", f"services.{spec.kind}", spec.name)
            restart: Restart = spec.restart if isinstance(spec, MachineSpec) else "always"
            result.append(ProcessSpec(ProcessName(spec.name), spec.kind, argv, restart))
        return result

    def environment(self) -> dict[str, str]:
        """What a process of this topology needs in its environment besides the caller's own."""
        return {"IOVIRT_TOPOLOGY": str(self.source) if self.source else ""}

    def names(self, kind: Kind) -> list[str]:
        """Names of the processes of one kind, in the file's order."""
        return [spec.name for spec in self.specs() if spec.kind == kind]

    def guest(self, name: str) -> MachineSpec:
        """Return one guest.

        Raises:
            ConfigError: There is none of that name.
        """
        if name not in self.guests:
            raise ConfigError(f"no guest '{name}'", self.label, f"guests: {', '.join(self.guests) or 'none'}")
        return self.guests[GuestName(name)]

    def hypervisor(self, name: str) -> HypervisorSpec:
        """Return one hypervisor; KeyError if there is none, as references are checked when loading."""
        return self.hypervisors[ProcessName(name)]

    def controller(self, name: str) -> ControllerSpec:
        """Return one controller; KeyError if there is none, as references are checked when loading."""
        return self.controllers[ProcessName(name)]

    def guests_of(self, hypervisor: str) -> list[MachineSpec]:
        """The guests that one hypervisor serves."""
        return [guest for guest in self.guests.values() if guest.hypervisor == hypervisor]

    def controllers_of(self, hypervisor: str) -> list[ControllerSpec]:
        """The controllers that one hypervisor's guests reach: a queue pair each."""
        wanted = {name for guest in self.guests_of(hypervisor) for name in guest.controllers}
        return [controller for name, controller in self.controllers.items() if name in wanted]

    def terminals_of(self, controller: str) -> list[str]:
        """The terminals of one console controller, by guest name."""
        consoles = [guest.console for guest in self.guests.values() if guest.console is not None]
        return [console.terminal for console in consoles if console.controller == controller]

    def require_processes(self) -> None:
        """Refuse a topology in which there is nothing to start.

        Raises:
            ConfigError: It has neither controllers nor hypervisors nor guests.
        """
        if not self.specs():
            fix = "add some; 'iovirt config --toml' prints an example"
            raise ConfigError("the topology has no guest, no hypervisor and no controller", self.label, fix)

    def missing_images(self) -> list[ImageError]:
        """Name every guest image that is not a readable file; disk images are created when absent."""
        errors: list[ImageError] = []
        for guest in self.guests.values():
            if isinstance(guest, MachineSpec):
                for key, path in (("image", guest.image), ("payload", guest.payload)):
                    if path is not None and not path.is_file():
                        errors.append(ImageError("no such image file", f"guest {guest.name}: {path}", f"set {key}"))
        return errors
