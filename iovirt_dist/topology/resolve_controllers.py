"""Controllers: image sizes, extents, and who shares what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import ProcessName
from iovirt_dist.platform.qos import SchedulerKind
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.resolve_hosts import HostResolver
from iovirt_dist.topology.resolve_net import NetResolver
from iovirt_dist.topology.scope import NAME, ControllerAttributes, Scope
from iovirt_dist.topology.specs import BlockSpec, ConsoleSpec, ControllerSpec, ExtentSpec, RngSpec

SECTOR_BYTES: Final = 512
"""Extents are made of whole ATA logical sectors (ATA/ATAPI-6, IDENTIFY DEVICE)."""


ARBITRATION_WEIGHTS: Final = (1, 255)
"""Weights of queue pairs, as of NVMe's weighted round robin, whose fields are 0's based 8-bit numbers."""


class ControllerResolver:
    """Turns the tables of controllers into specs.

    Args:
        scope: The topology that they belong to.
        hosts: Its hosts.
        hypervisors: Names of its hypervisors.
    """

    def __init__(self, scope: Scope, hosts: HostResolver, hypervisors: Collection[str]) -> None:
        self._scope = scope
        self._hosts = hosts
        self._hypervisors = hypervisors

    def resolve(self, tables: Mapping[str, schema.ControllerTable]) -> dict[ProcessName, ControllerSpec]:
        """Check all controllers.

        Raises:
            ConfigError: Something is contradictory; `where` names file and key.
            EndpointError: A socket path is too long.
        """
        controllers = {ProcessName(name): self._controller(name, table) for name, table in tables.items()}
        self._check_images(controllers)
        return controllers

    def _controller(self, name: str, table: schema.ControllerTable) -> ControllerSpec:
        common = self._common(name, table)
        if isinstance(table, schema.ConsoleTable):
            return ConsoleSpec(**common)
        if isinstance(table, schema.RngTable):
            return RngSpec(**common, scheduler=SchedulerKind(table.scheduler), depth=table.depth)
        if isinstance(table, schema.NetTable):
            return NetResolver(self._scope, name).resolve(table, common)
        image = self._scope.path(table.image)
        size_bytes = self._image_size(table, image, name)
        return BlockSpec(
            **common,
            image=image,
            size_bytes=size_bytes,
            write_through=table.durability == "write-through",
            read_only=table.read_only,
            scheduler=SchedulerKind(table.scheduler),
            depth=table.depth,
            merge=table.merge,
            extents=self._extents(table, size_bytes, name),
            overlays=self._scope.path(table.overlays or f"{image}.overlays"),
        )

    def _common(self, name: str, table: schema.DeviceTable) -> ControllerAttributes:
        """The attributes that every controller has."""
        host = self._hosts.host(table.host, self._scope.where("controller", name, "host"))
        return ControllerAttributes(
            name=ProcessName(name),
            endpoint=self._hosts.endpoint(table.endpoint, "controller", name, host),
            host=host,
            driver=table.driver,
            arbitration={key: self._weight(name, key, weight) for key, weight in table.arbitration.items()},
        )

    def _weight(self, name: str, hypervisor: str, weight: int) -> int:
        low, high = ARBITRATION_WEIGHTS
        where = self._scope.where("controller", name, "arbitration", hypervisor)
        if hypervisor not in self._hypervisors:
            raise ConfigError(f"no hypervisor '{hypervisor}'", where, suggestion(hypervisor, self._hypervisors))
        if not low <= weight <= high:
            raise ConfigError(f"expected an integer from {low} to {high}, got {weight}", where)
        return weight

    def _image_size(self, table: schema.BlockTable, image: Path, name: str) -> int:
        """Bytes of the image: as written, else those of the file."""
        where = self._scope.where("controller", name, "size")
        size_bytes = self._scope.quantity(table.size, units.parse_size, where)
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
            raise ConfigError(f"'{name}' is no name", self._scope.where(*keys), "use letters, digits, '_', '.' and '-'")
        written = table.extents[name]
        offset_bytes = self._scope.quantity(written.offset, units.parse_size, self._scope.where(*keys, "offset"))
        size_bytes = self._scope.quantity(written.size, units.parse_size, self._scope.where(*keys, "size"))
        if offset_bytes % SECTOR_BYTES or size_bytes % SECTOR_BYTES or not size_bytes:
            raise ConfigError(
                f"offset and size must be multiples of {SECTOR_BYTES}, size not 0", self._scope.where(*keys)
            )
        extent = ExtentSpec(
            name=name,
            offset_bytes=offset_bytes,
            size_bytes=size_bytes,
            read_only=written.read_only or table.read_only,
        )
        if extent.end_bytes > image_bytes:
            what = f"the extent ends at {extent.end_bytes}, the image at {image_bytes}"
            raise ConfigError(what, self._scope.where(*keys), "enlarge controller size or shrink the extent")
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
                raise ConfigError(
                    f"extents {shown} overlap", self._scope.where("controller", controller, "extents"), fix
                )
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
                raise ConfigError(what, self._scope.where("controller", second.name, "image"), fix)
