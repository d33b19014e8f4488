"""Guests: replicas, the devices behind them, and what their kind says of machine, program, script or VM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.platform import pc
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.qos import Qos
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.guest_specs import GuestAttributes
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.program_abi import PROGRAM_ABIS, program_abi
from iovirt_dist.topology.qos import DEVICES, resolve_qos
from iovirt_dist.topology.replicas import Replica, choices, reach, replicas
from iovirt_dist.topology.resolve_hosts import Placement
from iovirt_dist.topology.resolve_nbd import resolve_listening
from iovirt_dist.topology.resolve_net import derived_mac, parse_mac
from iovirt_dist.topology.resolve_programs import program_arguments, program_environment, program_files
from iovirt_dist.topology.resolve_vm import VM_MEMORY_RANGE_BYTES, VM_MEMORY_STEP_BYTES, resolve_vm
from iovirt_dist.topology.scaling import Scaling
from iovirt_dist.topology.scope import Scope
from iovirt_dist.topology.specs import (
    BlockSpec,
    ConsoleAttachment,
    ConsoleSpec,
    ControllerSpec,
    DiskAttachment,
    GuestSpec,
    HypervisorSpec,
    MachineSpec,
    NbdSpec,
    NetAttachment,
    NetSpec,
    ProgramSpec,
    RngAttachment,
    RngSpec,
    ScriptSpec,
)

PAGE_BYTES: Final = 4096

MEMORY_RANGE_BYTES: Final = (1 << 20, 2 << 30)
"""RAM of any guest. ``pc`` keeps the upper half of the 32-bit space for PCI and the ROM."""

BUNDLED_IMAGES: Final = {"guestos": ("images", "guestos.elf")}
"""Images that come with the package, by the name behind ``bundled:``."""

VIRTIO_CONSOLE_SUFFIX: Final = ".hvc0"
"""As Linux names the first virtio console."""

DEFAULT_LEVELS: Final = {"pc": Level.OPERATION, "virt": Level.DRIVER}
"""A PC's disk has registers of its own, ATA; the virt machine's is virtio."""

_SCRIPT: Final = re.compile(r"(?P<place>.+):(?P<function>[A-Za-z_][A-Za-z0-9_]*)", re.DOTALL)
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

_KERNEL_FORMATS: Final = frozenset({"auto", "elf", "multiboot"})
"""Image formats that take a command line; what ``auto`` finds to be a ROM ignores it."""
_T = TypeVar("_T")


def _command_line(table: schema.MachineTable, level: Level) -> str:
    """The kernel's command line; on ``pc`` it is the only place where a kernel learns of virtio devices."""
    if table.machine != "pc" or table.format not in _KERNEL_FORMATS:
        return table.command_line
    present = {
        VirtioSlot.DISK: table.devices.disk and level is Level.DRIVER,
        VirtioSlot.CONSOLE: table.devices.virtio_console,
        VirtioSlot.ENTROPY: table.devices.rng,
        VirtioSlot.NETWORK: table.devices.net,
    }
    words = pc.virtio_words(slot for slot, there in present.items() if there)
    return " ".join([table.command_line, *words] if table.command_line else words)


class Guests(NamedTuple):
    """All guests of a topology.

    Attributes:
        specs: By name.
        counts: How many each table has.
        groups: Tables by the names of their guests.
        reach: Controllers that guests of a hypervisor may need, by hypervisor.
        homes: Hypervisors that a table's guests may have, by table.
    """

    specs: dict[GuestName, GuestSpec]
    counts: dict[str, int]
    groups: dict[GuestName, str]
    reach: dict[ProcessName, tuple[ProcessName, ...]]
    homes: dict[str, tuple[ProcessName, ...]]


class GuestResolver:
    """Turns the tables of guests into specs.

    Args:
        scope: The topology that they belong to.
        hypervisors: All hypervisors by name.
        controllers: All controllers by name.
        placement: Chooses among hypervisors.
        scaling: Replicas of guest tables where they are not what the tables say, and where guests are already.
    """

    def __init__(
        self,
        scope: Scope,
        hypervisors: Mapping[ProcessName, HypervisorSpec],
        controllers: Mapping[ProcessName, ControllerSpec],
        placement: Placement,
        scaling: Scaling,
    ) -> None:
        self._scope = scope
        self._hypervisors = hypervisors
        self._controllers = controllers
        self._placement = placement
        self._scaling = scaling

    def resolve(self, tables: Mapping[str, schema.AnyGuestTable]) -> Guests:
        """Check all guests.

        Raises:
            ConfigError: Something is contradictory; `where` names file and key.
        """
        for group, table in tables.items():
            self._keep(group, table)
        groups = {group: self._guests(group, table) for group, table in tables.items()}
        guests = {guest.name: guest for found in groups.values() for guest in found}
        self._check_writers(guests)
        self._check_terminals(guests)
        of = {guest.name: group for group, found in groups.items() for guest in found}
        counts = {group: len(found) for group, found in groups.items()}
        homes = {group: tuple(map(ProcessName, choices(table))) for group, table in tables.items()}
        return Guests(guests, counts, of, reach(tables, self._scaling, self._controllers), homes)

    def _keep(self, group: str, table: schema.AnyGuestTable) -> None:
        """Check a table's hypervisors, and let those of its guests that run somewhere already stay there."""
        for hypervisor in choices(table):
            if hypervisor not in self._hypervisors:
                where = self._scope.where("guest", group, "hypervisor")
                raise ConfigError(f"no hypervisor '{hypervisor}'", where, suggestion(hypervisor, self._hypervisors))
        for replica in replicas(group, table, self._scaling):
            place = self._scaling.places.get(replica.name)
            if place in choices(table):
                self._placement.keep(replica.name, place, self._memory(table, group))

    def _guests(self, group: str, table: schema.AnyGuestTable) -> list[GuestSpec]:
        return [self._guest(replica, table) for replica in replicas(group, table, self._scaling)]

    def _guest(self, replica: Replica, table: schema.AnyGuestTable) -> GuestSpec:
        self._scope.claim_name(replica.name, self._scope.where("guest", replica.group))
        common = self._common(replica, table)
        if isinstance(table, schema.MachineTable):
            return self._machine(replica.group, table, common)
        if isinstance(table, schema.ProgramTable):
            return self._program(replica.group, table, common)
        host = self._hypervisors[common["hypervisor"]].host
        if isinstance(table, schema.VmTable):
            return resolve_vm(self._scope, replica.group, table, host, common)
        if isinstance(table, schema.NbdTable):
            return NbdSpec(**common, **resolve_listening(self._scope, replica, table, host))
        return self._script(replica.group, table, common)

    def _common(self, replica: Replica, table: schema.AnyGuestTable) -> GuestAttributes:
        devices, group = table.devices, replica.group
        hvc = devices.virtio_console if isinstance(devices, schema.DevicesTable) else ""
        disk = self._disk(replica.fill(devices.disk), self._device_key(group, "disk"))
        if devices.overlay:
            if disk is None:
                where = self._device_key(group, "overlay")
                raise ConfigError("an overlay without a disk", where, 'set devices.disk = "..."')
            disk = disk._replace(overlay=replica.name)
        memory_bytes = self._memory(table, group)
        where = self._scope.where("guest", group, "hypervisor")
        return GuestAttributes(
            name=GuestName(replica.name),
            hypervisor=self._placement.place(replica.name, choices(table), memory_bytes, where),
            restart=table.restart,
            memory_bytes=memory_bytes,
            disk=disk,
            console=self._console(devices.console, replica.name, self._device_key(group, "console")),
            virtio_console=self._console(
                hvc, f"{replica.name}{VIRTIO_CONSOLE_SUFFIX}", self._device_key(group, "virtio_console")
            ),
            rng=self._rng(devices.rng, self._device_key(group, "rng")),
            net=self._net(devices, replica) if isinstance(devices, schema.MachineDevicesTable) else None,
            qos=self._qos(table, group),
        )

    def _qos(self, table: schema.AnyGuestTable, group: str) -> dict[str, Qos]:
        """What it may have of each device that it has."""
        found: dict[str, Qos] = {}
        for device in DEVICES:
            written: schema.QosTable = getattr(table.qos, device)
            controller = getattr(table.devices, device).partition("/")[0]
            spec = self._controllers.get(ProcessName(controller))
            if isinstance(spec, (BlockSpec, RngSpec)):
                found[device] = resolve_qos(self._scope, group, device, written, spec.scheduler)
            elif written != schema.QosTable():
                where = self._scope.where("guest", group, "qos", device)
                raise ConfigError(f"the guest has no device '{device}'", where, f"set devices.{device}, or remove this")
        return found

    def _device_key(self, group: str, device: str) -> str:
        return self._scope.where("guest", group, "devices", device)

    def _memory(self, table: schema.AnyGuestTable, group: str) -> int:
        where = self._scope.where("guest", group, "memory")
        memory_bytes = self._scope.quantity(table.memory, units.parse_size, where)
        (low, high), step = MEMORY_RANGE_BYTES, PAGE_BYTES
        if isinstance(table, schema.VmTable):
            (low, high), step = VM_MEMORY_RANGE_BYTES, VM_MEMORY_STEP_BYTES
        if not low <= memory_bytes <= high or memory_bytes % step:
            span = f"{units.format_size(low)} to {units.format_size(high)} in steps of {units.format_size(step)}"
            whose = f"machine '{table.machine}'" if isinstance(table, schema.MachineTable) else f"a {table.kind}"
            raise ConfigError(f"{whose} takes {span}, got {units.format_size(memory_bytes)}", where)
        return memory_bytes

    # -- kinds -----------------------------------------------------------------------------------------------------

    def _machine(self, group: str, table: schema.MachineTable, common: GuestAttributes) -> MachineSpec:
        level = self._level(group, table)
        return MachineSpec(
            **common,
            machine=table.machine,
            level=level,
            image=self._image(table.image, self._scope.where("guest", group, "image")),
            image_name=table.image,
            image_format=table.format,
            payload=self._scope.path(table.payload) if table.payload else None,
            command_line=_command_line(table, level),
            prefetch=table.prefetch,
        )

    def _level(self, group: str, table: schema.MachineTable) -> Level:
        """The level as written if the machine has what it needs, else the machine's own."""
        if table.level is None:
            return DEFAULT_LEVELS[table.machine]
        level = Level(table.level)
        if table.machine == "virt":
            where = self._scope.where("guest", group, "level")
            if level is Level.SYSCALL:
                what = "system calls are taken on machine 'pc' and of programs, not on machine 'virt'"
                raise ConfigError(what, where, 'set machine = "pc", kind = "program" or level = "driver"')
            if level is Level.OPERATION and table.devices.disk:
                what = "the disk of machine 'virt' is virtio, without registers of its own to intercept"
                raise ConfigError(what, where, 'set level = "driver" or machine = "pc", or remove devices.disk')
        return level

    def _image(self, written: str, where: str) -> Path:
        if not written.startswith("bundled:"):
            return self._scope.path(written)
        name = written.removeprefix("bundled:")
        if name not in BUNDLED_IMAGES:
            raise ConfigError(f"no bundled image '{name}'", where, suggestion(name, BUNDLED_IMAGES))
        with resources.as_file(resources.files("iovirt_dist").joinpath(*BUNDLED_IMAGES[name])) as path:
            return path

    def _program(self, group: str, table: schema.ProgramTable, common: GuestAttributes) -> ProgramSpec:
        image = self._scope.path(table.image)
        abi = table.abi if table.abi != "auto" else program_abi(image)
        if table.abi != "auto" and abi not in PROGRAM_ABIS:
            where = self._scope.where("guest", group, "abi")
            raise ConfigError(f"no ABI '{abi}'", where, suggestion(abi, ("auto", *PROGRAM_ABIS)))
        return ProgramSpec(
            **common,
            image=image,
            image_name=table.image,
            arguments=program_arguments(self._scope, group, table) or (image.name,),
            environment=program_environment(self._scope, group, table),
            abi=abi,
            files=program_files(self._scope, group, table),
        )

    def _script(self, group: str, table: schema.ScriptTable, common: GuestAttributes) -> ScriptSpec:
        where = self._scope.where("guest", group, "script")
        match = _SCRIPT.fullmatch(table.script)
        place = match["place"] if match else ""
        file = self._scope.path(place) if place.endswith(".py") else None
        if match is None or (file is None and not _MODULE.fullmatch(place)):
            what = f'expected "PACKAGE.MODULE:FUNCTION" or "FILE.py:FUNCTION", got "{table.script}"'
            raise ConfigError(what, where, f'such as script = "{place or "load.py"}:main"' if match is None else "")
        return ScriptSpec(
            **common,
            script=table.script,
            file=file,
            module=file.stem if file else place,
            function=match["function"],
            parameters=table.parameters,
        )

    # -- devices ---------------------------------------------------------------------------------------------------

    def _reference(self, name: str, kind: type[_T], kind_name: str, where: str) -> _T:
        of_kind = {key: spec for key, spec in self._controllers.items() if isinstance(spec, kind)}
        spec = self._controllers.get(ProcessName(name))
        if spec is None:
            raise ConfigError(f"no controller '{name}'", where, suggestion(name, of_kind))
        if not isinstance(spec, kind):
            what = f'controller \'{name}\' is of kind "{spec.kind}", expected "{kind_name}"'
            raise ConfigError(what, where, suggestion(name, of_kind))
        return spec

    def _disk(self, written: str, where: str) -> DiskAttachment | None:
        if not written:
            return None
        controller, slash, extent_name = written.partition("/")
        block = self._reference(controller, BlockSpec, "block", where)
        names = [extent.name for extent in block.extents]
        if not slash and len(names) == 1:
            extent_name = names[0]
        if not slash and len(names) > 1:
            raise ConfigError(f"'{controller}' has {len(names)} extents", where, f"write {controller}/{names[0]}")
        if extent_name not in names:
            what = f"controller '{controller}' has no extent '{extent_name}'"
            raise ConfigError(what, where, suggestion(extent_name, names))
        return DiskAttachment(block.name, block.extent(extent_name))

    def _console(self, written: str, terminal: str, where: str) -> ConsoleAttachment | None:
        if not written:
            return None
        return ConsoleAttachment(self._reference(written, ConsoleSpec, "console", where).name, terminal)

    def _rng(self, written: str, where: str) -> RngAttachment | None:
        return RngAttachment(self._reference(written, RngSpec, "rng", where).name) if written else None

    def _net(self, devices: schema.MachineDevicesTable, replica: Replica) -> NetAttachment | None:
        where = self._device_key(replica.group, "mac")
        if not devices.net:
            if devices.mac:
                raise ConfigError("an address without a network card", where, 'set devices.net = "..."')
            return None
        switch = self._reference(devices.net, NetSpec, "net", self._device_key(replica.group, "net"))
        mac = parse_mac(devices.mac, where) if devices.mac else derived_mac(replica.name)
        return NetAttachment(switch.name, replica.name, mac, switch.mtu)

    def _check_writers(self, guests: Mapping[GuestName, GuestSpec]) -> None:
        """Refuse a second guest on a writable extent, or one below overlays: no file system would survive it."""
        writers: dict[tuple[str, str], str] = {}
        where = f"{self._scope.origin.label}: guest"
        disks = [(guest.name, guest.disk) for guest in guests.values() if guest.disk is not None]
        for guest, disk in disks:
            if disk.extent.read_only or disk.overlay:
                continue
            key = (disk.controller, disk.extent.name)
            if key in writers:
                what = f"guests '{writers[key]}' and '{guest}' both write extent '{key[0]}/{key[1]}'"
                fix = "give each an extent ('{name}' and '{n}' stand for the replica), or make it read_only = true"
                raise ConfigError(what, where, fix)
            writers[key] = guest
        for guest, disk in disks:
            writer = writers.get((disk.controller, disk.extent.name), "")
            if disk.overlay and writer:
                what = f"guest '{writer}' writes extent '{disk.controller}/{disk.extent.name}', the base of '{guest}'"
                fix = f"set overlay = true for '{writer}', too, or make the extent read_only = true"
                raise ConfigError(what, where, fix)

    def _check_terminals(self, guests: Mapping[GuestName, GuestSpec]) -> None:
        """Refuse two terminals of one name, which would be one file: that of ``a.hvc0`` and the second of ``a``."""
        owners: dict[str, str] = {}
        for guest in guests.values():
            for console in guest.terminals:
                if console.terminal in owners:
                    what = f"guests '{owners[console.terminal]}' and '{guest.name}' both have terminal"
                    where = f"{self._scope.origin.label}: guest"
                    raise ConfigError(f"{what} '{console.terminal}'", where, "rename one of them")
                owners[console.terminal] = guest.name
