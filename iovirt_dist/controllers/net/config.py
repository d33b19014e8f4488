"""The network controller's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

NS_PER_S: Final = 1_000_000_000

AGING_NS: Final = 300 * NS_PER_S
"""A learned address that was silent for this long is forgotten (IEEE 802.1Q-2018, table 8-6, "Ageing Time")."""

STORM_FRAMES_PER_S: Final = 1000
"""Default of `NetConfig.storm_frames_per_s`."""

MAC_LIMIT: Final = 64
"""Default of `PortConfig.mac_limit`."""

QUEUE_FRAMES: Final = 512
"""Frames that wait for a port's guest; more are dropped."""

MAX_PORTS: Final = 128
"""Ports of a switch: their parked receives are half of a queue pair's credits at most."""

QUEUE_CREDITS: Final = 2048
"""Commands that one queue pair may have in flight, parked receives included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    """One port of the switch, for one guest's card.

    Attributes:
        name: By which it is identified.
        peer: The hypervisor that may use it.
        mac: The card's address, 6 bytes.
        vlan: The VLAN that it is in, 1..4094; frames there have no tag.
        anti_spoofing: Frames must come from `mac`; otherwise addresses are learned.
        mac_limit: Most addresses that are learned at this port.
        bytes_per_s: Most that its guest may send; 0 for any amount.
        tap: File that what passes the port is written to, None for none.
    """

    name: str
    peer: str
    mac: bytes
    vlan: int = 1
    anti_spoofing: bool = True
    mac_limit: int = MAC_LIMIT
    bytes_per_s: int = 0
    tap: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderConfig:
    """The built-in host.

    Attributes:
        interface: Its address and network.
        mac: Its Ethernet address, 6 bytes.
        vlan: The VLAN that it is in.
        dhcp: First and last address to lease, None for no DHCP server.
        tftp: Whether there is a TFTP server.
        mtu: Largest payload of a frame, bytes.
    """

    interface: IPv4Interface
    mac: bytes
    vlan: int = 1
    dhcp: tuple[IPv4Address, IPv4Address] | None = None
    tftp: bool = False
    mtu: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class NetConfig:
    """A switch.

    Attributes:
        ports: For guests, at most `MAX_PORTS`; the place is the unit number.
        storm_frames_per_s: Frames to many (broadcast, multicast, unknown) that each port may send; 0 for any number.
        responder: The built-in host, None for none.
        tap: File that every frame is written to once, None for none.
        aging_ns: Silence after which a learned address is forgotten.
        queue_frames: Frames that wait for a port's guest.
        uplink: Interface that is one more port, empty for none.
    """

    ports: tuple[PortConfig, ...]
    storm_frames_per_s: int = STORM_FRAMES_PER_S
    responder: ResponderConfig | None = None
    tap: Path | None = None
    aging_ns: int = AGING_NS
    queue_frames: int = QUEUE_FRAMES
    uplink: str = ""
