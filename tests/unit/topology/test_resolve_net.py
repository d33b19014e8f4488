"""Switches in a topology: ports, addresses, the built-in host, and what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from iovirt_dist.controllers.net import config
from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import ProcessName
from iovirt_dist.runtime.net_process import net_config
from iovirt_dist.topology import (
    MachineSpec,
    NetAttachment,
    NetSpec,
    Origin,
    PortSpec,
    Topology,
    resolve_net,
    topology_from_text,
)
from iovirt_dist.topology.resolve_net import derived_mac
from iovirt_dist.wire.commands import MAX_FRAME_BYTES

HEAD = '[hypervisor.hv0]\n[controller.tty0]\nkind = "console"\n'
SWITCH = '[controller.sw0]\nkind = "net"\n'
RESPONDER = SWITCH + '[controller.sw0.responder]\naddress = "10.0.0.1/24"\n'
GUEST = '[guest.{0}]\nkind = "machine"\nmachine = "virt"\nhypervisor = "hv0"\nimage = "bundled:guestos"\n'
PLUGGED = GUEST + 'devices.net = "sw0"\n'
ALICE, BOB = PLUGGED.format("alice"), PLUGGED.format("bob")


def resolve(text: str) -> Topology:
    """Check `text` as if it were t.toml in /base."""
    return topology_from_text(HEAD + text, Origin("t.toml", Path("/base/t.toml"), Path("/base")))


def switch(topology: Topology) -> NetSpec:
    """The switch."""
    spec = topology.controller("sw0")
    assert isinstance(spec, NetSpec)
    return spec


def test_switch_has_a_port_for_each_guest_with_a_card() -> None:
    """With an address that follows from the guest's name."""
    topology = resolve(SWITCH + ALICE + GUEST.format("carol") + BOB)

    ports = topology.ports_of(switch(topology))

    assert [(port.name, port.hypervisor, port.mac) for port in ports] == [
        ("alice", "hv0", derived_mac("alice")),
        ("bob", "hv0", derived_mac("bob")),
    ]
    assert topology.guest("alice").controllers == ("sw0",)
    assert topology.guest("carol").net is None


def test_switch_without_settings_has_the_controllers_defaults() -> None:
    """The topology cannot import them, so they are written twice."""
    topology = resolve(SWITCH + ALICE)

    made = net_config(topology, switch(topology))

    assert made == config.NetConfig(ports=(config.PortConfig(name="alice", peer="hv0", mac=derived_mac("alice")),))
    assert resolve_net.MAX_PORTS == config.MAX_PORTS
    assert switch(topology).mtu == 1500


def test_derived_address_is_locally_administered_and_always_the_same() -> None:
    """IEEE 802: bit 1 of the first byte set, bit 0 clear."""
    assert derived_mac("alice").hex(":") == "02:2b:d8:06:c9:7f"
    assert derived_mac("bob") != derived_mac("alice")


def test_guest_has_the_address_that_is_written() -> None:
    """In either case of letters."""
    guest = resolve(SWITCH + ALICE + 'devices.mac = "52:54:00:Ab:cd:eF"\n').guest("alice")

    assert guest.net is not None
    assert guest.net == NetAttachment(ProcessName("sw0"), "alice", bytes.fromhex("525400abcdef"), 1500)


def test_pc_network_card_is_told_on_the_command_line() -> None:
    """In its slot."""
    guest = resolve(SWITCH + ALICE.replace('"virt"', '"pc"')).guest("alice")

    assert isinstance(guest, MachineSpec)
    assert guest.command_line == "virtio_mmio.device=4K@0xfeb03000:11"


def test_switch_settings_of_a_port_are_for_a_guest_or_for_all_of_a_group() -> None:
    """What is written for one replica goes before what is written for all."""
    topology = resolve(
        SWITCH
        + 'mtu = 9000\nstorm_limit = 50\ntap = "all.pcap"\n'
        + '[controller.sw0.ports.node]\nvlan = 10\nrate = "1MiB"\n'
        + '[controller.sw0.ports.node-2]\nanti_spoofing = false\nmac_limit = 5\ntap = "two.pcap"\n'
        + GUEST.format("node")
        + 'count = 3\ndevices.net = "sw0"\n'
    )

    ports = {port.name: port.settings for port in topology.ports_of(switch(topology))}

    shared = PortSpec(vlan=10, bytes_per_s=1 << 20)
    own = PortSpec(anti_spoofing=False, mac_limit=5, tap=Path("/base/two.pcap"))
    assert ports == {"node-1": shared, "node-2": own, "node-3": shared}
    made = net_config(topology, switch(topology))
    assert (made.storm_frames_per_s, made.tap) == (50, Path("/base/all.pcap"))
    assert topology.guest("node-1").net == NetAttachment(ProcessName("sw0"), "node-1", derived_mac("node-1"), 9000)


def test_switch_has_the_built_in_host_that_is_written() -> None:
    """Paths are absolute; its address follows from the switch's name."""
    topology = resolve(RESPONDER + 'vlan = 7\ndhcp = "10.0.0.100 - 10.0.0.199"\ntftp = "files"\n' + ALICE)

    responder = net_config(topology, switch(topology)).responder

    assert responder == config.ResponderConfig(
        interface=IPv4Interface("10.0.0.1/24"),
        mac=derived_mac("sw0.responder"),
        vlan=7,
        dhcp=(IPv4Address("10.0.0.100"), IPv4Address("10.0.0.199")),
        tftp=True,
    )
    written = switch(topology).responder
    assert written is not None
    assert written.tftp == Path("/base/files")


def test_longest_packet_of_a_switch_fits_a_frame_with_a_tag() -> None:
    """18 bytes of header."""
    assert resolve(SWITCH + f"mtu = {MAX_FRAME_BYTES - 18}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLUGGED.format("a"), "t.toml: guest.a.devices.net: no controller 'sw0'; there are none"),
        (
            SWITCH + GUEST.format("a") + 'devices.net = "tty0"\n',
            't.toml: guest.a.devices.net: controller \'tty0\' is of kind "console", expected "net"; known: sw0',
        ),
        (
            SWITCH + GUEST.format("a") + 'devices.mac = "02:00:00:00:00:01"\n',
            't.toml: guest.a.devices.mac: an address without a network card; set devices.net = "..."',
        ),
        (SWITCH + ALICE + 'devices.mac = "02:00:00:00:00"\n', "t.toml: guest.alice.devices.mac: expected an address"),
        (
            SWITCH + ALICE + 'devices.mac = "03:00:00:00:00:01"\n',
            "t.toml: guest.alice.devices.mac: 03:00:00:",
        ),
        (
            SWITCH + ALICE + 'devices.mac = "00:00:00:00:00:00"\n',
            "t.toml: guest.alice.devices.mac: 00:00:00:",
        ),
        (
            SWITCH + ALICE + 'devices.mac = "02:00:00:00:00:01"\n' + BOB + 'devices.mac = "02:00:00:00:00:01"\n',
            "t.toml: guest: guest 'alice' and guest 'bob' both have address 02:00:00:00:00:01; set devices.mac of one",
        ),
        (
            RESPONDER + ALICE + f'devices.mac = "{derived_mac("sw0.responder").hex(":")}"\n',
            "t.toml: guest: the built-in host and guest 'alice' both have address",
        ),
        (
            SWITCH + "[controller.sw0.ports.alic]\n" + ALICE,
            "t.toml: controller.sw0.ports.alic: no guest 'alic' with net = \"sw0\"; did you mean 'alice'?",
        ),
        (
            SWITCH + "[controller.sw0.ports.alice]\nvlan = 4095\n" + ALICE,
            "t.toml: controller.sw0.ports.alice.vlan: expected a VLAN's number from 1 to 4094, got 4095",
        ),
        (
            SWITCH + '[controller.sw0.ports.alice]\nrate = "2TiB"\n' + ALICE,
            "t.toml: controller.sw0.ports.alice.rate: 2199023255552 bytes per second is no limit; remove it",
        ),
        (
            SWITCH + GUEST.format("a") + 'count = 129\ndevices.net = "sw0"\n',
            "t.toml: controller.sw0: 129 guests at one switch, at most 128; add another switch",
        ),
        (SWITCH + "mtu = 9199\n", "t.toml: controller.sw0.mtu: expected an integer from 576 to 9198, got 9199"),
        (
            RESPONDER.replace("10.0.0.1/24", "10.0.0.256"),
            't.toml: controller.sw0.responder.address: expected an IPv4 address and network, got "10.0.0.256"',
        ),
        (
            RESPONDER.replace("10.0.0.1/24", "10.0.0.1"),
            "t.toml: controller.sw0.responder.address: 10.0.0.1 is not a host's address in a network with others",
        ),
        (
            RESPONDER.replace("10.0.0.1/24", "10.0.0.255/24"),
            "t.toml: controller.sw0.responder.address: 10.0.0.255/24 is not a host's address",
        ),
        (
            RESPONDER + 'dhcp = "10.0.0.100"\n',
            't.toml: controller.sw0.responder.dhcp: expected first and last address, got "10.0.0.100"; such as',
        ),
        (
            RESPONDER + 'dhcp = "10.0.0.9-10.0.0.8"\n',
            "t.toml: controller.sw0.responder.dhcp: 10.0.0.9-10.0.0.8 is no range of hosts in 10.0.0.0/24",
        ),
        (
            RESPONDER + 'dhcp = "10.0.0.9-10.0.1.8"\n',
            "t.toml: controller.sw0.responder.dhcp: 10.0.0.9-10.0.1.8 is no range of hosts",
        ),
        (
            RESPONDER + 'dhcp = "10.0.0.1-10.0.0.8"\n',
            "t.toml: controller.sw0.responder.dhcp: 10.0.0.1-10.0.0.8 holds the built-in host's own address, 10.0.0.1",
        ),
        (
            RESPONDER.replace("/24", "/8") + 'dhcp = "10.1.0.0-10.1.16.0"\n',
            "t.toml: controller.sw0.responder.dhcp: 10.1.0.0-10.1.16.0 is more than 4096 addresses; take fewer",
        ),
        (
            SWITCH + 'tap = "d.img"\n[controller.disk0]\nkind = "block"\nimage = "x/../d.img"\nsize = "1MiB"\n',
            "t.toml: controller.sw0.tap: /base/d.img is the image of 'disk0'; name another file",
        ),
        (
            SWITCH
            + 'tap = "x.pcap"\n[controller.sw0.ports.alice]\ntap = "x.pcap"\n[controller.sw1]\nkind = "net"\n'
            + 'tap = "x.pcap"\n'
            + ALICE,
            "t.toml: controller.sw1.tap: /base/x.pcap is a capture of 'sw0'; name another file",
        ),
        (RESPONDER.replace("address", "adress"), "t.toml: controller.sw0.responder.adress: unknown key; did you mean"),
    ],
)
def test_switch_that_cannot_be_is_refused(text: str, message: str) -> None:
    """File, key, what is wrong, and what to do."""
    with pytest.raises(ConfigError) as error:
        resolve(text)
    assert str(error.value).startswith(message)
