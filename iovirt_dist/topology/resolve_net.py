"""Switches: addresses, ports, the built-in host, and what must be so for all guests of a switch together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final, TypeGuard

from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.topology import schema, units
from iovirt_dist.topology.net_specs import NetSpec, PortSpec, ResponderSpec
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.scope import ControllerAttributes, Scope
from iovirt_dist.topology.specs import BlockSpec, ControllerSpec, GuestSpec

MAX_PORTS: Final = 128
"""Ports of a switch."""

LOCAL: Final = 0x02
"""First byte of a derived address: locally administered, of one station (IEEE 802-2014, section 8.2)."""

MAX_LEASES: Final = 4096
"""Addresses of a DHCP server, more than there are ports."""

MAX_RATE_BYTES: Final = 1 << 40

_INTERFACE: Final = re.compile(r"(?!\.{1,2}$)[^/\s:%]{1,15}")
"""IFNAMSIZ is 16 with the final NUL (linux/if.h); what Linux's dev_valid_name refuses is left out."""

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def derived_mac(name: str) -> bytes:
    """Return the Ethernet address that follows from a name: the same at every start and on every host."""
    return bytes((LOCAL,)) + hashlib.sha256(name.encode()).digest()[:5]


def parse_mac(written: str, where: str) -> bytes:
    """Return an Ethernet address of one station, 6 bytes.

    Raises:
        ConfigError: It is none.
    """
    if not _MAC.fullmatch(written):
        raise ConfigError(f'expected an address such as "02:00:00:00:00:01", got "{written}"', where)
    mac = bytes.fromhex(written.replace(":", ""))
    if mac[0] & 1 or not any(mac):
        raise ConfigError(f"{written} is not the address of one station", where, "let it begin with 02")
    return mac


class NetResolver:
    """Turns the table of a switch into its spec.

    Args:
        scope: The topology that it belongs to.
        name: The switch's.
    """

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope = scope
        self._name = name

    def resolve(self, table: schema.NetTable, common: ControllerAttributes) -> NetSpec:
        """Check one switch.

        Args:
            table: As written.
            common: What every controller has.

        Raises:
            ConfigError: Something is contradictory; `where` names file and key.
        """
        return NetSpec(
            **common,
            mtu=table.mtu,
            uplink=self._uplink(table.uplink),
            storm_frames_per_s=table.storm_limit,
            tap=self._scope.path(table.tap) if table.tap else None,
            responder=self._responder(table.responder) if table.responder else None,
            ports={guest: self._port(guest, port) for guest, port in table.ports.items()},
        )

    def _uplink(self, written: str) -> str:
        if written and not _INTERFACE.fullmatch(written):
            what = f"'{written}' is no name of a network interface"
            raise ConfigError(what, self._where("uplink"), "at most 15 characters, without '/' and spaces")
        return written

    def _where(self, *keys: str) -> str:
        return self._scope.where("controller", self._name, *keys)

    def _port(self, guest: str, table: schema.PortTable) -> PortSpec:
        where = self._where("ports", guest, "rate")
        bytes_per_s = self._scope.quantity(table.rate, units.parse_size, where)
        if bytes_per_s > MAX_RATE_BYTES:
            raise ConfigError(f"{bytes_per_s} bytes per second is no limit", where, "remove it")
        return PortSpec(
            vlan=table.vlan,
            anti_spoofing=table.anti_spoofing,
            mac_limit=table.mac_limit,
            bytes_per_s=bytes_per_s,
            tap=self._scope.path(table.tap) if table.tap else None,
        )

    def _responder(self, table: schema.ResponderTable) -> ResponderSpec:
        where = self._where("responder", "address")
        fix = 'such as address = "10.0.0.1/24"'
        try:
            interface = IPv4Interface(table.address)
        except ValueError:
            raise ConfigError(f'expected an IPv4 address and network, got "{table.address}"', where, fix) from None
        if interface.network.prefixlen > 30 or not _is_host(interface.ip, interface):
            raise ConfigError(f"{table.address} is not a host's address in a network with others", where, fix)
        return ResponderSpec(
            interface=interface,
            mac=derived_mac(f"{self._name}.responder"),
            vlan=table.vlan,
            dhcp=self._dhcp(table.dhcp, interface) if table.dhcp else None,
            tftp=self._scope.path(table.tftp) if table.tftp else None,
        )

    def _dhcp(self, written: str, interface: IPv4Interface) -> tuple[IPv4Address, IPv4Address]:
        where = self._where("responder", "dhcp")
        first_text, _, last_text = written.partition("-")
        try:
            first, last = IPv4Address(first_text.strip()), IPv4Address(last_text.strip())
        except ValueError:
            what = f'expected first and last address, got "{written}"'
            raise ConfigError(what, where, 'such as "10.0.0.100-10.0.0.199"') from None
        if first > last or not _is_host(first, interface) or not _is_host(last, interface):
            raise ConfigError(f"{written} is no range of hosts in {interface.network}", where)
        if int(last) - int(first) >= MAX_LEASES:
            raise ConfigError(f"{written} is more than {MAX_LEASES} addresses", where, "take fewer")
        if first <= interface.ip <= last:
            raise ConfigError(f"{written} holds the built-in host's own address, {interface.ip}", where)
        return first, last


def _is_host(address: IPv4Address, interface: IPv4Interface) -> bool:
    network = interface.network
    return address in network and address not in (network.network_address, network.broadcast_address)


def check_networks(
    scope: Scope,
    controllers: Mapping[ProcessName, ControllerSpec],
    guests: Mapping[GuestName, GuestSpec],
    groups: Mapping[str, schema.AnyGuestTable],
) -> None:
    """Check what switches and guests say of each other.

    Raises:
        ConfigError: A port is nobody's, an address is there twice, there are too many ports, or a capture would
            overwrite a disk image or another switch's.
    """
    taken = {spec.image.resolve(): f"the image of '{spec.name}'" for spec in controllers.values() if _is_block(spec)}
    for switch in controllers.values():
        if isinstance(switch, NetSpec):
            _check_switch(scope, switch, guests, groups)
            _check_taps(scope, switch, taken)


def _is_block(spec: ControllerSpec) -> TypeGuard[BlockSpec]:
    return isinstance(spec, BlockSpec)


def _check_taps(scope: Scope, switch: NetSpec, taken: dict[Path, str]) -> None:
    """Refuse a capture file that is something else already; one switch may write several captures to one file."""
    taps = [(("tap",), switch.tap), *((("ports", name, "tap"), port.tap) for name, port in switch.ports.items())]
    owner = f"a capture of '{switch.name}'"
    for keys, tap in taps:
        if tap is not None and taken.setdefault(tap.resolve(), owner) != owner:
            where = scope.where("controller", switch.name, *keys)
            raise ConfigError(f"{tap} is {taken[tap.resolve()]}", where, "name another file")


def _check_switch(
    scope: Scope, switch: NetSpec, guests: Mapping[GuestName, GuestSpec], groups: Mapping[str, schema.AnyGuestTable]
) -> None:
    plugged = [guest for guest in guests.values() if guest.net is not None and guest.net.controller == switch.name]
    names = {guest.name for guest in plugged}
    wanted = {name: table for name, table in groups.items() if getattr(table.devices, "net", "") == switch.name}
    for port in switch.ports:
        if port not in names and port not in wanted:
            where = scope.where("controller", switch.name, "ports", port)
            raise ConfigError(f"no guest '{port}' with net = \"{switch.name}\"", where, suggestion(port, wanted))
    if len(plugged) > MAX_PORTS:
        where = scope.where("controller", switch.name)
        raise ConfigError(f"{len(plugged)} guests at one switch, at most {MAX_PORTS}", where, "add another switch")
    owners = {switch.responder.mac: "the built-in host"} if switch.responder else {}
    for guest in plugged:
        assert guest.net is not None, "only these are plugged in"
        mac = guest.net.mac
        if mac in owners:
            what = f"{owners[mac]} and guest '{guest.name}' both have address {mac.hex(':')}"
            raise ConfigError(what, f"{scope.origin.label}: guest", "set devices.mac of one, and of no 'count' above 1")
        owners[mac] = f"guest '{guest.name}'"
