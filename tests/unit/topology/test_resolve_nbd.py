"""Where an NBD gateway listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import NbdSpec, Origin, Topology, topology_from_text
from iovirt_dist.topology.scaling import Scaling

HEAD = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = "1MiB"
read_only = true
[guest.nbd]
kind = "nbd"
hypervisor = "hv0"
devices.disk = "disk0"
"""


def topology(rest: str = "") -> Topology:
    """A topology with a gateway."""
    return topology_from_text(HEAD + rest, Origin("t.toml", None, Path("/srv")))


def gateway(rest: str = "", name: str = "nbd") -> NbdSpec:
    """The gateway of one."""
    spec = topology(rest).guest(name)
    assert isinstance(spec, NbdSpec)
    return spec


def test_gateway_listens_in_the_run_directory_under_its_name() -> None:
    """The export has that name, too."""
    spec = gateway()
    assert (spec.socket, spec.port, spec.export) == (Path("/srv/.iovirt/nbd.nbd"), 0, "nbd")
    assert spec.uri == "nbd+unix:///nbd?socket=/srv/.iovirt/nbd.nbd"


def test_socket_and_export_may_be_chosen() -> None:
    """What an address cannot hold as it is is escaped."""
    spec = gateway('socket = "my disk.sock"\nexport = "a/b"')
    assert spec.uri == "nbd+unix:///a%2Fb?socket=/srv/my%20disk.sock"


def test_replicas_have_ports_that_follow() -> None:
    """And names of their own."""
    found = topology('port = 10809\ncount = 2\nexport = "{name}!"')
    specs = [found.guest(name) for name in ("nbd-1", "nbd-2")]
    assert [spec.uri for spec in specs if isinstance(spec, NbdSpec)] == [
        "nbd://127.0.0.1:10809/nbd-1%21",
        "nbd://127.0.0.1:10810/nbd-2%21",
    ]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ('port = 1\nsocket = "x"', "t.toml: guest.nbd.port: a gateway has a socket or a port; remove one of them"),
        ("port = 65535\ncount = 2", "t.toml: guest.nbd.port: replica 2 would have port 65536"),
        ("port = 65536", "t.toml: guest.nbd.port: expected a port from 1 to 65535, or 0 for none, got 65536"),
        (
            'socket = "x"\ncount = 2',
            "t.toml: guest.nbd.socket: ipc:///srv/x is the endpoint of 'nbd-1' too; change one",
        ),
        ('export = "a\\n"', "t.toml: guest.nbd.export: an export's name is printable and has at most 256 bytes"),
        (
            "qos.rng.iops = 5",
            "t.toml: guest.nbd.qos.rng: the guest has no device 'rng'; set devices.rng, or remove this",
        ),
    ],
)
def test_gateway_that_cannot_be_is_one_line(rest: str, message: str) -> None:
    """With the key."""
    with pytest.raises(ConfigError) as caught:
        topology(rest)
    assert str(caught.value) == message


TWO_HOSTS = """
[topology]
keys = "keys"
[host.east]
address = "127.0.0.1"
[host.west]
address = "127.0.0.2"
"""


def gateway_on(host: str, address: str) -> str:
    """A gateway with all that it needs, on a host."""
    placed = HEAD.replace("hv0", f"hv-{host}").replace("disk0", f"disk-{host}").replace("guest.nbd", f"guest.{host}")
    placed = placed.replace(f"[hypervisor.hv-{host}]", f'[hypervisor.hv-{host}]\nhost = "{host}"')
    return placed.replace('kind = "block"', f'kind = "block"\nhost = "{host}"') + address


@pytest.mark.parametrize("address", ["port = 10809\n", 'socket = "nbd.sock"\n'])
def test_gateways_of_two_hosts_may_have_the_same_address(address: str) -> None:
    """Both mean the host itself."""
    text = TWO_HOSTS + gateway_on("east", address) + gateway_on("west", address)

    found = topology_from_text(text, Origin("t.toml", Path("/srv/t.toml"), Path("/srv")))

    assert [found.at(host).names("guest") for host in ("east", "west")] == [["east"], ["west"]]


def test_gateway_does_not_take_the_endpoint_of_another_process() -> None:
    """Whatever host it is on."""
    text = TWO_HOSTS + gateway_on("west", "port = 10809\n")
    text = text.replace('host = "west"', 'host = "west"\nendpoint = "tcp://127.0.0.1:10809"', 1)

    with pytest.raises(ConfigError, match=r"guest\.west\.port: tcp://127.0.0.1:10809 is the endpoint of 'hv-west' too"):
        topology_from_text(text, Origin("t.toml", Path("/srv/t.toml"), Path("/srv")))


def test_gateway_that_is_scaled_has_ports_that_follow() -> None:
    """As many as were written would have."""
    origin = Origin("t.toml", None, Path("/srv"))

    found = topology_from_text(HEAD + "port = 10809", origin, Scaling(1, "", {"nbd": 2}))

    assert [spec.port for spec in found.guests.values() if isinstance(spec, NbdSpec)] == [10809, 10810]


def test_gateway_without_a_disk_is_none() -> None:
    """It is all that it serves."""
    with pytest.raises(ConfigError, match="key 'devices' is missing"):
        topology_from_text(HEAD.replace('devices.disk = "disk0"\n', ""), Origin("t.toml", None, Path("/srv")))


def test_socket_with_too_long_a_path_is_refused() -> None:
    """The operating system would not take it."""
    with pytest.raises(
        ConfigError, match=r"guest\.nbd\.socket: .* 125 bytes, the limit is 107; choose one whose path .* shorter"
    ):
        topology(f'socket = "{"x" * 120}"')
