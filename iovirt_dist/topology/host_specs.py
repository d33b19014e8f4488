"""Hosts and driver domains of a checked topology; part of `iovirt_dist.topology.specs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from iovirt_dist.ids import HostName, ProcessName

NATIVE = "native"
"""Placement of a host-side driver: in the hypervisor, which drives a controller process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A machine, or a network namespace, on which a part of the topology runs.

    Attributes:
        name: Unique among hosts.
        address: Where the other hosts reach it.
        control: ``tcp://ADDRESS:PORT`` at which its supervisor answers the other hosts.
        memory_bytes: Most memory for its guests; 0 for any amount.
    """

    name: HostName
    address: str
    control: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverDomainSpec:
    """One driver domain: a process that serves devices with the host operating system's own drivers.

    Attributes:
        name: Unique in the topology.
        host: Where it runs; empty if the topology names no hosts.
        devices: Names of the controllers whose device it serves, each at its own endpoint; at least one.
    """

    kind: ClassVar[Literal["driver_domain"]] = "driver_domain"
    name: ProcessName
    host: HostName
    devices: tuple[ProcessName, ...]
