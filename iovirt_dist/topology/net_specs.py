"""The network part of a checked topology; part of `iovirt_dist.topology.specs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from iovirt_dist.ids import NO_HOST, GuestName, HostName, ProcessName
from iovirt_dist.topology.host_specs import NATIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """What holds at a guest's port.

    Attributes:
        vlan: 1..4094.
        anti_spoofing: Frames must come from the guest's own address.
        mac_limit: Most addresses that are learned at the port.
        bytes_per_s: Most that the guest may send; 0 for any amount.
        tap: Absolute path of the capture file; None for none.
    """

    vlan: int = 1
    anti_spoofing: bool = True
    mac_limit: int = 64
    bytes_per_s: int = 0
    tap: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderSpec:
    """The built-in host of a switch.

    Attributes:
        interface: Its address and network.
        mac: Its Ethernet address, 6 bytes.
        vlan: 1..4094.
        dhcp: First and last address to lease, within the network; None for no DHCP server.
        tftp: Absolute path of the folder to read from; None for no TFTP server.
    """

    interface: IPv4Interface
    mac: bytes
    vlan: int
    dhcp: tuple[IPv4Address, IPv4Address] | None
    tftp: Path | None


_DEFAULT_PORT = PortSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSpec:
    """One network controller process: a switch.

    Attributes:
        name: Unique in the topology.
        endpoint: Where it listens for hypervisors.
        mtu: Largest payload of a frame, bytes.
        storm_frames_per_s: Frames to many that each port may send; 0 for any number.
        tap: Absolute path of the capture file of all frames; None for none.
        responder: The built-in host; None for none.
        uplink: Name of the TAP interface that is one more port; empty for none.
        ports: What holds at guests' ports where it is not the default, by guest, replicas expanded.
    """

    kind: ClassVar[Literal["net"]] = "net"
    name: ProcessName
    endpoint: str
    mtu: int
    storm_frames_per_s: int
    tap: Path | None
    responder: ResponderSpec | None
    ports: Mapping[str, PortSpec]
    uplink: str = ""
    host: HostName = NO_HOST
    driver: str = NATIVE
    arbitration: Mapping[str, int] = field(default_factory=dict)

    def port(self, guest: GuestName) -> PortSpec:
        """Return what holds at a guest's port: as written for it or for its group, or the default."""
        group = guest.rpartition("-")[0]
        return self.ports.get(guest) or self.ports.get(group) or _DEFAULT_PORT


class SwitchPort(NamedTuple):
    """A port of a switch that is in use.

    Attributes:
        name: The guest's.
        hypervisor: Name of the one that serves the guest.
        mac: The card's address, 6 bytes.
        settings: What holds there.
    """

    name: str
    hypervisor: ProcessName
    mac: bytes
    settings: PortSpec
