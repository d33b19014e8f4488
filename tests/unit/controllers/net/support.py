"""Frames and stations of the tests of the network controller."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from iovirt_dist.controllers.net.config import PortConfig, ResponderConfig
from iovirt_dist.controllers.net.packets import BROADCAST

SECOND = 1_000_000_000
A, B, C, D = (bytes((2, 0, 0, 0, 0, number)) for number in range(1, 5))
HOST = bytes((2, 0, 0, 0, 0, 0x10))
SERVER, CLIENT = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 100))
RESPONDER = ResponderConfig(
    interface=IPv4Interface("10.0.0.1/24"),
    mac=HOST,
    dhcp=(IPv4Address("10.0.0.100"), IPv4Address("10.0.0.102")),
    tftp=True,
)


def port(name: str, mac: bytes, **keys: object) -> PortConfig:
    """A port of hypervisor hv0 with settings."""
    settings: dict[str, object] = {"peer": "hv0", **keys}
    return PortConfig(name=name, mac=mac, **settings)  # type: ignore[arg-type]  # tests name them rightly


def frame(
    source: bytes, destination: bytes = BROADCAST, payload: bytes = b"payload", kind: bytes = b"\x88\xb5"
) -> bytes:
    """An Ethernet frame of an experimental EtherType."""
    return destination + source + kind + payload
