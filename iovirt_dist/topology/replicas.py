"""Replicas of a guest table: how many there are now, their names, and which controllers they may need where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from iovirt_dist.ids import ProcessName
from iovirt_dist.topology import schema
from iovirt_dist.topology.scaling import Scaling


class Replica(NamedTuple):
    """One guest to be: its table, which may stand for several.

    Attributes:
        group: The table's name.
        name: The guest's own.
        number: Which replica, from 1.
    """

    group: str
    name: str
    number: int

    def fill(self, written: str) -> str:
        """Return what was written with this replica's name and number in it."""
        return written.replace("{name}", self.name).replace("{n}", str(self.number))


def choices(table: schema.AnyGuestTable) -> list[str]:
    """Hypervisors that a table's replicas may have."""
    return [table.hypervisor] if isinstance(table.hypervisor, str) else table.hypervisor


def replicas(group: str, table: schema.AnyGuestTable, scaling: Scaling, least: int = 0) -> list[Replica]:
    """Name a table's replicas. The first keeps the name that the file gives it, however many there are now.

    Args:
        group: The table's name.
        table: As written.
        scaling: How many there are if not as many as written.
        least: How many to name at least.
    """
    count = max(scaling.counts.get(group, table.count), least)
    alone = 1 if table.count == 1 else 0
    return [Replica(group, group if n == alone else f"{group}-{n}", n) for n in range(1, count + 1)]


def reach(
    tables: Mapping[str, schema.AnyGuestTable], scaling: Scaling, controllers: Mapping[ProcessName, object]
) -> dict[ProcessName, tuple[ProcessName, ...]]:
    """Find the controllers that guests of each hypervisor may need, wherever `iovirt scale` puts them.

    Args:
        tables: Guests as written.
        scaling: How many there are.
        controllers: By name.
    """
    found: dict[ProcessName, set[str]] = {}
    for group, table in tables.items():
        for replica in replicas(group, table, scaling, table.count):
            for hypervisor in choices(table):
                found.setdefault(ProcessName(hypervisor), set()).update(_needed(replica, table))
    return {name: tuple(known for known in controllers if known in needed) for name, needed in found.items()}


def _needed(replica: Replica, table: schema.AnyGuestTable) -> set[str]:
    devices = table.devices
    written = [devices.disk, devices.console, devices.rng]
    if isinstance(devices, schema.DevicesTable):
        written.append(devices.virtio_console)
    if isinstance(devices, schema.MachineDevicesTable):
        written.append(devices.net)
    return {replica.fill(name).partition("/")[0] for name in written}
