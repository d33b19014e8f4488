"""From tables to the checked topology: names, references, paths, addresses, extents, replicas.

Each check names the file, the key and, where two things collide, both of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.endpoint import resolve_endpoint
from iovirt_dist.topology.parse import join_key, suggestion
from iovirt_dist.topology.specs import (
    BlockSpec,
    ConsoleAttachment,
    ConsoleSpec,
    ControllerSpec,
    DiskAttachment,
    ExtentSpec,
    HypervisorSpec,
    MachineSpec,
    Topology,
)

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A process, extent or terminal name: safe as a file name and as a word of a log line."""

SECTOR_BYTES: Final = 512
"""Extents are made of whole ATA logical sectors (ATA/ATAPI-6, IDENTIFY DEVICE)."""

PAGE_BYTES: Final = 4096

MEMORY_RANGE_BYTES: Final = {"pc": (1 << 20, 2 << 30), "virt": (1 << 20, 2 << 30)}
"""RAM per machine. ``pc`` keeps the upper half of the 32-bit space for PCI and the ROM."""

BUNDLED_IMAGES: Final = {"guestos": ("images", "guestos.elf")}
"""Images that come with the package, by the name behind ``bundled:``."""


_T = TypeVar("_T")


class Origin(NamedTuple):
    """Where a topology comes from.

    Attributes:
        label: For messages: the file's name as given, or "built-in topology".
        source: Absolute path of the file; None for the built-in default.
        base: Absolute folder that relative paths start from.
    """

    label: str
    source: Path | None
    base: Path


class _Resolver:
    """Turns one document into a topology; see `resolve_topology`."""

    def __init__(self, document: schema.Document, origin: Origin) -> None:
        self._document = document
        self._origin = origin
        self._run_dir = self._path(document.topology.run_dir)
        self._names: dict[str, str] = {}
        self._endpoints: dict[str, str] = {}

    def _where(self, *keys: str) -> str:
        path = ""
        for key in keys:
            path = join_key(path, key)
        return f"{self._origin.label}: {path}"

    def _path(self, written: str) -> Path:
        # normalised, as every byte of a socket path counts
        return Path(os.path.normpath(Path(self._origin.base, Path(written).expanduser())))

    def _quantity(self, written: _T, parse: Callable[[_T], int], where: str) -> int:
        try:
            return parse(written)
        except ValueError as error:
            shown = f'"{written}"' if isinstance(written, str) else str(written)
            raise ConfigError(f"{error}, got {shown}", where) from None

    def _claim_name(self, name: str, where: str) -> None:
        if not NAME.fullmatch(name):
            fix = "use letters, digits, '_', '.' and '-', a letter or digit first, at most 63"
            raise ConfigError(f"'{name}' is no name", where, fix)
        if name in self._names:
            raise ConfigError(f"the name '{name}' is taken by {self._names[name]}", where, "rename one of them")
        self._names[name] = where.removeprefix(f"{self._origin.label}: ")

    def _endpoint(self, written: str, table: str, name: str) -> str:
        where = self._where(table, name, "endpoint")
        self._claim_name(name, self._where(table, name))
        endpoint = resolve_endpoint(written, self._run_dir / "sock" / name, self._origin.base, where)
        if endpoint in self._endpoints:
            raise ConfigError(f"{endpoint} is the endpoint of '{self._endpoints[endpoint]}' too", where, "change one")
        self._endpoints[endpoint] = name
        return endpoint

    def topology(self) -> Topology:
        """Resolve everything; see `resolve_topology`."""
        table = self._document.topology
        lease_ns = self._quantity(table.lease, units.parse_duration_ns, self._where("topology", "lease"))
        if lease_ns == 0:
            raise ConfigError("the lease must be longer than 0", self._where("topology", "lease"))
        hypervisors = {ProcessName(name): self._hypervisor(name) for name in self._document.hypervisor}
        controllers = {ProcessName(name): self._controller(name) for name in self._document.controller}
        self._check_images(controllers)
        guests = {
            guest.name: guest
            for name in self._document.guest
            for guest in self._replicas(name, hypervisors, controllers)
        }
        self._check_writers(guests)
        return Topology(
            name=table.name,
            source=self._origin.source,
            run_dir=self._run_dir,
            lease_ns=lease_ns,
            hypervisors=hypervisors,
            controllers=controllers,
            guests=guests,
            label=self._origin.label,
        )

    def _hypervisor(self, name: str) -> HypervisorSpec:
        endpoint = self._endpoint(self._document.hypervisor[name].endpoint, "hypervisor", name)
        return HypervisorSpec(name=ProcessName(name), endpoint=endpoint)

    # -- controllers -----------------------------------------------------------------------------------------------

    def _controller(self, name: str) -> ControllerSpec:
        table = self._document.controller[name]
        endpoint = self._endpoint(table.endpoint, "controller", name)
        if isinstance(table, schema.ConsoleTable):
            return ConsoleSpec(name=ProcessName(name), endpoint=endpoint)
        image = self._path(table.image)
        size_bytes = self._image_size(table, image, name)
        return BlockSpec(
            name=ProcessName(name),
            endpoint=endpoint,
            image=image,
            size_bytes=size_bytes,
            write_through=table.durability == "write-through",
            read_only=table.read_only,
            extents=self._extents(table, size_bytes, name),
        )

    def _image_size(self, table: schema.BlockTable, image: Path, name: str) -> int:
        """Bytes of the image: as written, else those of the file."""
        where = self._where("controller", name, "size")
        size_bytes = self._quantity(table.size, units.parse_size, where)
        if size_bytes == 0:
            if not image.is_file():
                raise ConfigError(f"{image} does not exist and no size is given", where, 'add size = "16MiB"')
            size_bytes = image.stat().st_size // SECTOR_BYTES * SECTOR_BYTES
        if size_bytes == 0 or size_bytes % SECTOR_BYTES:
            raise ConfigError(f"{size_bytes} bytes is not a positive multiple of {SECTOR_BYTES}", where)
        return size_bytes

    def _extents(self, table: schema.BlockTable, size_bytes: int, controller: str) -> tuple[ExtentSpec, ...]:
        if not table.extents:
            return (ExtentSpec(name="all", offset_bytes=0, size_bytes=size_bytes, read_only=table.read_only),)
        extents = [self._extent(table, size_bytes, controller, name) for name in table.extents]
        extents.sort(key=lambda extent: (extent.offset_bytes, extent.end_bytes))
        self._check_overlap(extents, controller)
        return tuple(extents)

    def _extent(self, table: schema.BlockTable, image_bytes: int, controller: str, name: str) -> ExtentSpec:
        keys = ("controller", controller, "extents", name)
        if not NAME.fullmatch(name):
            raise ConfigError(f"'{name}' is no name", self._where(*keys), "use letters, digits, '_', '.' and '-'")
        written = table.extents[name]
        offset_bytes = self._quantity(written.offset, units.parse_size, self._where(*keys, "offset"))
        size_bytes = self._quantity(written.size, units.parse_size, self._where(*keys, "size"))
        if offset_bytes % SECTOR_BYTES or size_bytes % SECTOR_BYTES or not size_bytes:
            raise ConfigError(f"offset and size must be multiples of {SECTOR_BYTES}, size not 0", self._where(*keys))
        extent = ExtentSpec(
            name=name,
            offset_bytes=offset_bytes,
            size_bytes=size_bytes,
            read_only=written.read_only or table.read_only,
        )
        if extent.end_bytes > image_bytes:
            what = f"the extent ends at {extent.end_bytes}, the image at {image_bytes}"
            raise ConfigError(what, self._where(*keys), "enlarge controller size or shrink the extent")
        return extent

    def _check_overlap(self, extents: list[ExtentSpec], controller: str) -> None:
        """Refuse two extents that share bytes unless both are read-only; `extents` is sorted by offset."""
        widest = extents[0]
        widest_writable: ExtentSpec | None = None if widest.read_only else widest
        for extent in extents[1:]:
            rival = widest_writable if extent.read_only else widest
            if rival is not None and extent.offset_bytes < rival.end_bytes:
                shown = " and ".join(f"'{e.name}' [{e.offset_bytes}, {e.end_bytes})" for e in (rival, extent))
                fix = "move one, or make both read_only = true"
                raise ConfigError(f"extents {shown} overlap", self._where("controller", controller, "extents"), fix)
            if extent.end_bytes > widest.end_bytes:
                widest = extent
            if not extent.read_only and (widest_writable is None or extent.end_bytes > widest_writable.end_bytes):
                widest_writable = extent

    def _check_images(self, controllers: dict[ProcessName, ControllerSpec]) -> None:
        """Refuse two controllers on one image file unless both open it read-only."""
        blocks = [spec for spec in controllers.values() if isinstance(spec, BlockSpec)]
        blocks.sort(key=lambda block: (block.image.resolve(), block.read_only))
        for first, second in pairwise(blocks):
            if first.image.resolve() == second.image.resolve() and not (first.read_only and second.read_only):
                what = f"'{first.name}' and '{second.name}' use one image, {first.image}"
                fix = "use extents of one controller, or make both read_only = true"
                raise ConfigError(what, self._where("controller", second.name, "image"), fix)

    # -- guests ----------------------------------------------------------------------------------------------------

    def _replicas(
        self,
        name: str,
        hypervisors: dict[ProcessName, HypervisorSpec],
        controllers: dict[ProcessName, ControllerSpec],
    ) -> list[MachineSpec]:
        table = self._document.guest[name]
        if table.hypervisor not in hypervisors:
            where = self._where("guest", name, "hypervisor")
            raise ConfigError(f"no hypervisor '{table.hypervisor}'", where, suggestion(table.hypervisor, hypervisors))
        numbers = range(1, table.count + 1)
        return [self._guest(name, f"{name}-{n}" if table.count > 1 else name, n, controllers) for n in numbers]

    def _guest(self, group: str, name: str, number: int, controllers: dict[ProcessName, ControllerSpec]) -> MachineSpec:
        table = self._document.guest[group]
        self._claim_name(name, self._where("guest", group))
        devices = table.devices
        disk_name = devices.disk.replace("{name}", name).replace("{n}", str(number))
        disk = self._disk(disk_name, self._where("guest", group, "devices", "disk"), controllers)
        where = self._where("guest", group, "devices", "console")
        console = self._console(devices.console, name, where, controllers)
        return MachineSpec(
            name=GuestName(name),
            hypervisor=ProcessName(table.hypervisor),
            restart=table.restart,
            disk=disk,
            console=console,
            machine=table.machine,
            memory_bytes=self._memory(table, self._where("guest", group, "memory")),
            image=self._image(table.image, self._where("guest", group, "image")),
            image_name=table.image,
            image_format=table.format,
            payload=self._path(table.payload) if table.payload else None,
            command_line=table.command_line,
            prefetch=table.prefetch,
        )

    def _memory(self, table: schema.MachineTable, where: str) -> int:
        memory_bytes = self._quantity(table.memory, units.parse_size, where)
        low, high = MEMORY_RANGE_BYTES[table.machine]
        if not low <= memory_bytes <= high or memory_bytes % PAGE_BYTES:
            span = f"{units.format_size(low)} to {units.format_size(high)} in steps of 4KiB"
            raise ConfigError(f"machine '{table.machine}' takes {span}, got {units.format_size(memory_bytes)}", where)
        return memory_bytes

    def _image(self, written: str, where: str) -> Path:
        if not written.startswith("bundled:"):
            return self._path(written)
        name = written.removeprefix("bundled:")
        if name not in BUNDLED_IMAGES:
            raise ConfigError(f"no bundled image '{name}'", where, suggestion(name, BUNDLED_IMAGES))
        with resources.as_file(resources.files("iovirt_dist").joinpath(*BUNDLED_IMAGES[name])) as path:
            return path

    def _reference(
        self, name: str, kind: type[_T], kind_name: str, where: str, controllers: dict[ProcessName, ControllerSpec]
    ) -> _T:
        of_kind = {key: spec for key, spec in controllers.items() if isinstance(spec, kind)}
        spec = controllers.get(ProcessName(name))
        if spec is None:
            raise ConfigError(f"no controller '{name}'", where, suggestion(name, of_kind))
        if not isinstance(spec, kind):
            what = f'controller \'{name}\' is of kind "{spec.kind}", expected "{kind_name}"'
            raise ConfigError(what, where, suggestion(name, of_kind))
        return spec

    def _disk(self, written: str, where: str, controllers: dict[ProcessName, ControllerSpec]) -> DiskAttachment | None:
        if not written:
            return None
        controller, slash, extent_name = written.partition("/")
        block = self._reference(controller, BlockSpec, "block", where, controllers)
        names = [extent.name for extent in block.extents]
        if not slash and len(names) == 1:
            extent_name = names[0]
        if not slash and len(names) > 1:
            raise ConfigError(f"'{controller}' has {len(names)} extents", where, f"write {controller}/{names[0]}")
        if extent_name not in names:
            what = f"controller '{controller}' has no extent '{extent_name}'"
            raise ConfigError(what, where, suggestion(extent_name, names))
        return DiskAttachment(block.name, block.extent(extent_name))

    def _console(
        self, written: str, terminal: str, where: str, controllers: dict[ProcessName, ControllerSpec]
    ) -> ConsoleAttachment | None:
        if not written:
            return None
        return ConsoleAttachment(self._reference(written, ConsoleSpec, "console", where, controllers).name, terminal)

    def _check_writers(self, guests: dict[GuestName, MachineSpec]) -> None:
        """Refuse a second guest on a writable extent: neither's file system would survive it."""
        writers: dict[tuple[str, str], str] = {}
        for guest in guests.values():
            if guest.disk is None or guest.disk.extent.read_only:
                continue
            key = (guest.disk.controller, guest.disk.extent.name)
            if key in writers:
                what = f"guests '{writers[key]}' and '{guest.name}' both write extent '{key[0]}/{key[1]}'"
                fix = "give each an extent ('{name}' and '{n}' stand for the replica), or make it read_only = true"
                raise ConfigError(what, f"{self._origin.label}: guest", fix)
            writers[key] = guest.name


def resolve_topology(document: schema.Document, origin: Origin) -> Topology:
    """Check a document's references and turn it into a topology.

    Args:
        document: The file's tables.
        origin: Where it comes from.

    Returns:
        The topology with absolute paths, full addresses and expanded replicas.

    Raises:
        ConfigError: Something is contradictory; `where` names file and key.
        EndpointError: A socket path is too long.
    """
    return _Resolver(document, origin).topology()
