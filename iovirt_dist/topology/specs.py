"""The checked topology: what every process needs to know, with absolute paths and full addresses.

These dataclasses are the result of `iovirt_dist.topology.load.load_topology`; nothing in them needs another check,
except that files may be absent (`Topology.missing_images`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final, Literal, NamedTuple

from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.ids import NO_HOST, GuestName, HostName, ProcessName
from iovirt_dist.platform.qos import SchedulerKind
from iovirt_dist.topology.extent import ExtentSpec
from iovirt_dist.topology.guest_specs import (
    ConsoleAttachment,
    DiskAttachment,
    GuestBase,
    MachineSpec,
    NbdSpec,
    NetAttachment,
    ProgramSpec,
    Restart,
    RngAttachment,
    ScriptSpec,
)
from iovirt_dist.topology.host_specs import NATIVE, DriverDomainSpec, HostSpec
from iovirt_dist.topology.net_specs import NetSpec, PortSpec, ResponderSpec, SwitchPort
from iovirt_dist.topology.vm_specs import VmmSpec, VmSpec

__all__ = [
    "CONTROLLER_KINDS",
    "NATIVE",
    "STOPPING_ORDER",
    "AnySpec",
    "BlockSpec",
    "ConsoleAttachment",
    "ConsoleSpec",
    "ControllerSpec",
    "DiskAttachment",
    "DriverDomainSpec",
    "ExtentSpec",
    "GuestBase",
    "GuestSpec",
    "HostSpec",
    "HypervisorSpec",
    "Kind",
    "MachineSpec",
    "NbdSpec",
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
    "VmSpec",
    "VmmSpec",
]

Kind = Literal["hypervisor", "block", "console", "rng", "net", "driver_domain", "guest", "vmm"]
"""Process types: one entry point ``services/KIND.py`` and one Procfile line each."""

CONTROLLER_KINDS: Final[tuple[Kind, ...]] = ("block", "console", "rng", "net")

STOPPING_ORDER: Final[tuple[tuple[Kind, ...], ...]] = (
    ("vmm",),
    ("guest",),
    ("hypervisor",),
    ("driver_domain", *CONTROLLER_KINDS),
)
"""Kinds that are stopped together, clients first, so that no request loses its server; starting goes the other way."""


def host_folder(run_dir: Path, host: str) -> Path:
    """The run directory of one host's part of a topology, or of all of it."""
    return run_dir / host if host else run_dir


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
    host: HostName = NO_HOST


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
        depth: Small requests that a hypervisor has in flight for each guest that competes (`mux.multiqueue`).
        merge: Whether requests of one guest that touch or overlap become one command.
        extents: Virtual disks, at least one, by ascending offset.
        overlays: Absolute path of the folder of copy-on-write overlays.
        host: Where it runs; empty if the topology names no hosts; so of all processes.
        driver: `NATIVE`, or the driver domain that serves the device; so of all controllers.
        arbitration: Weight of a hypervisor's queue pair, 1 for those that are not there; so of all controllers.
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
    merge: bool = False
    overlays: Path
    host: HostName = NO_HOST
    driver: str = NATIVE
    arbitration: Mapping[str, int] = field(default_factory=dict)

    def extent(self, name: str) -> ExtentSpec:
        """Return the extent of that name; the topology's references are checked, so it exists."""
        return next(extent for extent in self.extents if extent.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSpec:
    """One console controller process: a terminal per guest."""

    kind: ClassVar[Kind] = "console"
    name: ProcessName
    endpoint: str
    host: HostName = NO_HOST
    driver: str = NATIVE
    arbitration: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RngSpec:
    """One entropy controller process: random bytes for any guest; `scheduler` and `depth` as of a `BlockSpec`."""

    kind: ClassVar[Kind] = "rng"
    name: ProcessName
    endpoint: str
    scheduler: SchedulerKind = SchedulerKind.DRR
    depth: int = 32
    host: HostName = NO_HOST
    driver: str = NATIVE
    arbitration: Mapping[str, int] = field(default_factory=dict)


ControllerSpec = BlockSpec | ConsoleSpec | RngSpec | NetSpec
GuestSpec = MachineSpec | ProgramSpec | ScriptSpec | VmSpec | NbdSpec
AnySpec = HypervisorSpec | ControllerSpec | DriverDomainSpec | GuestSpec | VmmSpec
"""What a process is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything that one topology file says.

    Attributes:
        name: The topology's name.
        source: Absolute path of the file; None for the built-in default.
        run_dir: Absolute path of the folder of sockets, logs and status files; of one host's if `host` is not empty.
        lease_ns: A peer that is silent for this long counts as gone.
        hypervisors: By name, in the file's order; so are the others.
        controllers: By name.
        guests: By name, replicas expanded.
        driver_domains: By name.
        hosts: By name; empty if the topology names none.
        host: The host whose part this is; empty for all of it.
        keys: Absolute path of the folder of CURVE keys; None without.
        counts: Replicas of each guest table now.
        groups: Guest tables by the names of their replicas.
        reach: Controllers that a hypervisor's guests may need, those that it may get included, by hypervisor.
        homes: Hypervisors that a guest table's replicas may have, by table.
        digest: SHA-256 of the file's text, in hexadecimal digits.
        revision: How often it was scaled since it came up.
    """

    name: str
    source: Path | None
    run_dir: Path
    lease_ns: int
    hypervisors: dict[ProcessName, HypervisorSpec]
    controllers: dict[ProcessName, ControllerSpec]
    guests: dict[GuestName, GuestSpec]
    label: str = field(default="built-in topology")
    driver_domains: dict[ProcessName, DriverDomainSpec] = field(default_factory=dict)
    hosts: dict[HostName, HostSpec] = field(default_factory=dict)
    host: HostName = NO_HOST
    keys: Path | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[GuestName, str] = field(default_factory=dict)
    reach: Mapping[ProcessName, tuple[ProcessName, ...]] = field(default_factory=dict)
    homes: Mapping[str, tuple[ProcessName, ...]] = field(default_factory=dict)
    digest: str = ""
    revision: int = 0

    def at(self, host: str) -> Topology:
        """Return the part of one host: its run directory, and of `specs` what runs there; everything else stays known.

        Raises:
            ConfigError: There is no such host.
        """
        if host not in self.hosts:
            known = f"hosts: {', '.join(self.hosts)}" if self.hosts else "the topology names no hosts"
            raise ConfigError(f"no host '{host}'", self.label, known)
        return replace(self, host=HostName(host), run_dir=host_folder(self.run_dir, host))

    def host_of(self, spec: AnySpec) -> HostName:
        """Where a process runs: a guest with its hypervisor, as does its VMM; empty if the topology names no hosts."""
        if isinstance(spec, VmmSpec):
            spec = spec.guest
        return self.hypervisors[spec.hypervisor].host if isinstance(spec, GuestBase) else spec.host

    def specs(self) -> list[AnySpec]:
        """Specs of the processes of this host, of all if there is none, in starting order.

        That is: controllers that have a process of their own, driver domains, hypervisors, guests, their VMMs.
        """
        native = [spec for spec in self.controllers.values() if spec.driver == NATIVE]
        everything: list[AnySpec] = [*native, *self.driver_domains.values(), *self.hypervisors.values()]
        everything += self.guests.values()
        everything += map(VmmSpec, self.virtual_machines())
        return [spec for spec in everything if not self.host or self.host_of(spec) == self.host]

    def processes(self) -> list[ProcessSpec]:
        """How to start every process, in starting order."""
        result: list[ProcessSpec] = []
        for spec in self.specs():
            # -P: a folder "services" in the user's current folder is not ours
            argv = (sys.executable, "-P", "-m", f"services.{spec.kind}", spec.name)
            restart: Restart = spec.restart if isinstance(spec, (GuestBase, VmmSpec)) else "always"
            result.append(ProcessSpec(ProcessName(spec.name), spec.kind, argv, restart))
        return result

    def environment(self) -> dict[str, str]:
        """What a process of this topology needs in its environment besides the caller's own."""
        environment = {"IOVIRT_TOPOLOGY": str(self.source) if self.source else ""}
        return environment | {"IOVIRT_HOST": self.host} if self.host else environment

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

    def virtual_machines(self) -> list[VmSpec]:
        """The guests whose VMM we start, each in a process of its own."""
        return [guest for guest in self.guests.values() if isinstance(guest, VmSpec) and guest.vmm != "external"]

    def controllers_of(self, hypervisor: str) -> list[ControllerSpec]:
        """The controllers that one hypervisor's guests reach, those that it may yet get included: a queue pair each."""
        wanted = {name for guest in self.guests_of(hypervisor) for name in guest.controllers}
        wanted.update(self.reach.get(ProcessName(hypervisor), ()))
        return [controller for name, controller in self.controllers.items() if name in wanted]

    def overlays_of(self, controller: str) -> frozenset[str]:
        """Units of one block controller that are guests' overlays, ``EXTENT@GUEST``."""
        disks = [guest.disk for guest in self.guests.values() if guest.disk is not None]
        return frozenset(disk.unit for disk in disks if disk.controller == controller and disk.overlay)

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
        """Refuse a topology in which there is nothing to start, or of which it is open what to start here.

        Raises:
            ConfigError: It has neither controllers nor hypervisors nor guests, or several hosts and none is chosen.
        """
        if len(self.hosts) > 1 and not self.host:
            raise ConfigError("which host is this?", self.label, f"say --host: {', '.join(self.hosts)}")
        if not self.specs():
            fix = "add some; 'iovirt config --toml' prints an example"
            raise ConfigError("the topology has no guest, no hypervisor and no controller", self.label, fix)

    def missing_images(self) -> list[ImageError]:
        """Name everything that a guest needs and that is not there; disk images are created when absent."""
        guests = [spec for spec in self.specs() if isinstance(spec, GuestBase)]
        return [error for guest in guests for error in guest.missing_files()]
