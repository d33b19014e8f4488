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
from iovirt_dist.platform.qos import SchedulerKind
from iovirt_dist.topology.extent import ExtentSpec
from iovirt_dist.topology.guest_specs import (
    ConsoleAttachment,
    DiskAttachment,
    GuestBase,
    GuestSpec,
    MachineSpec,
    NetAttachment,
    ProgramSpec,
    Restart,
    RngAttachment,
    ScriptSpec,
)
from iovirt_dist.topology.net_specs import NetSpec, PortSpec, ResponderSpec, SwitchPort

__all__ = [
    "CONTROLLER_KINDS",
    "KINDS",
    "AnySpec",
    "BlockSpec",
    "ConsoleAttachment",
    "ConsoleSpec",
    "ControllerSpec",
    "DiskAttachment",
    "ExtentSpec",
    "GuestBase",
    "GuestSpec",
    "HypervisorSpec",
    "Kind",
    "MachineSpec",
    "NetAttachment",
    "NetSpec",
    "PortSpec",
    "ProcessSpec",
    "ProgramSpec",
    "ResponderSpec",
    "Restart",
    "RngAttachment",
    "RngSpec",
    "ScriptSpec",
    "SwitchPort",
    "Topology",
]

Kind = Literal["hypervisor", "block", "console", "rng", "net", "guest"]
"""Process types: one entry point ``services/KIND.py`` and one Procfile line each."""

CONTROLLER_KINDS: Final[tuple[Kind, ...]] = ("block", "console", "rng", "net")

KINDS: Final[tuple[Kind, ...]] = (*CONTROLLER_KINDS, "hypervisor", "guest")
"""In starting order; stopping goes the other way, so that no request loses its server."""


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
class BlockSpec:
    """One block controller process.

    Attributes:
        name: Unique in the topology.
        endpoint: Where it listens for hypervisors.
        image: Absolute path of the raw image file.
        size_bytes: Size of the image; the file is created sparse if absent and must be at least this long otherwise.
        write_through: An acknowledged write is on stable storage.
        read_only: The whole image is opened read-only.
        scheduler: Order among the guests of a hypervisor.
        depth: Small requests that a hypervisor has in flight while its guests compete.
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
    scheduler: SchedulerKind = SchedulerKind.DRR
    depth: int = 32

    def extent(self, name: str) -> ExtentSpec:
        """Return the extent of that name; the topology's references are checked, so it exists."""
        return next(extent for extent in self.extents if extent.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSpec:
    """One console controller process: a terminal per guest."""

    kind: ClassVar[Kind] = "console"
    name: ProcessName
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RngSpec:
    """One entropy controller process: random bytes for any guest; `scheduler` and `depth` as of a `BlockSpec`."""

    kind: ClassVar[Kind] = "rng"
    name: ProcessName
    endpoint: str
    scheduler: SchedulerKind = SchedulerKind.DRR
    depth: int = 32


ControllerSpec = BlockSpec | ConsoleSpec | RngSpec | NetSpec
AnySpec = HypervisorSpec | ControllerSpec | GuestSpec


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
    guests: dict[GuestName, GuestSpec]
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
            restart: Restart = spec.restart if isinstance(spec, GuestBase) else "always"
            result.append(ProcessSpec(ProcessName(spec.name), spec.kind, argv, restart))
        return result

    def environment(self) -> dict[str, str]:
        """What a process of this topology needs in its environment besides the caller's own."""
        return {"IOVIRT_TOPOLOGY": str(self.source) if self.source else ""}

    def names(self, kind: Kind) -> list[str]:
        """Names of the processes of one kind, in the file's order."""
        return [spec.name for spec in self.specs() if spec.kind == kind]

    def guest(self, name: str) -> GuestSpec:
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

    def guests_of(self, hypervisor: str) -> list[GuestSpec]:
        """The guests that one hypervisor serves."""
        return [guest for guest in self.guests.values() if guest.hypervisor == hypervisor]

    def controllers_of(self, hypervisor: str) -> list[ControllerSpec]:
        """The controllers that one hypervisor's guests reach: a queue pair each."""
        wanted = {name for guest in self.guests_of(hypervisor) for name in guest.controllers}
        return [controller for name, controller in self.controllers.items() if name in wanted]

    def terminals_of(self, controller: str) -> list[str]:
        """Names of the terminals of one console controller."""
        consoles = [console for guest in self.guests.values() for console in guest.terminals]
        return [console.terminal for console in consoles if console.controller == controller]

    def ports_of(self, switch: NetSpec) -> list[SwitchPort]:
        """The ports of a switch: one for each guest with a card that is plugged in there, in the file's order."""
        return [
            SwitchPort(guest.net.port, guest.hypervisor, guest.net.mac, switch.port(guest.name))
            for guest in self.guests.values()
            if guest.net is not None and guest.net.controller == switch.name
        ]

    def terminal(self, name: str) -> ConsoleAttachment:
        """Return the terminal of that name; a guest's name stands for its first.

        Raises:
            ConfigError: There is none.
        """
        terminals = {console.terminal: console for guest in self.guests.values() for console in guest.terminals}
        if name in terminals:
            return terminals[name]
        guest = self.guest(name)
        if not guest.terminals:
            raise ConfigError(f"guest '{name}' has no console", self.label, f'set guest.{name}.devices.console = "..."')
        return guest.terminals[0]

    def require_processes(self) -> None:
        """Refuse a topology in which there is nothing to start.

        Raises:
            ConfigError: It has neither controllers nor hypervisors nor guests.
        """
        if not self.specs():
            fix = "add some; 'iovirt config --toml' prints an example"
            raise ConfigError("the topology has no guest, no hypervisor and no controller", self.label, fix)

    def missing_images(self) -> list[ImageError]:
        """Name everything that a guest needs and that is not there; disk images are created when absent."""
        return [error for guest in self.guests.values() for error in guest.missing_files()]
