"""A switch's port to the world outside: what the core asks for and is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from iovirt_dist.controllers.net.config import PortConfig

UPLINK: Final = "(uplink)"
"""Name of the uplink's port: no guest's."""

UPLINK_VLAN: Final = 1
"""What is outside is in this VLAN."""

UPLINK_MAC_LIMIT: Final = 1024
"""Addresses that are learned at the uplink: a bridge with others behind it may be there."""


class SendUplink(NamedTuple):
    """Put frames on the uplink, in order."""

    frames: Sequence[bytes]


class UplinkReceived(NamedTuple):
    """Frames came in by the uplink, in order; of any length."""

    frames: Sequence[bytes]


class UplinkDropped(NamedTuple):
    """So many frames of a `SendUplink` were not taken."""

    frames: int


class UplinkChanged(NamedTuple):
    """The interface is there again, or no more."""

    up: bool


UplinkEvent = UplinkReceived | UplinkDropped | UplinkChanged


def uplink_port() -> PortConfig:
    """The switch's port for an uplink: any address may be behind it."""
    return PortConfig(
        name=UPLINK, peer="", mac=bytes(6), vlan=UPLINK_VLAN, anti_spoofing=False, mac_limit=UPLINK_MAC_LIMIT
    )
