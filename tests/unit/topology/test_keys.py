"""Which keys there are, who may connect to whom, and where nobody may listen without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import Origin, Topology, topology_from_text
from iovirt_dist.topology.keys import clients_of, is_loopback, key_hosts, key_of, units_of

TWO_HOSTS = """
[topology]
keys = "keys"
[host.a]
address = "10.0.0.1"
[host.b]
address = "10.0.0.2"
[hypervisor.hva]
host = "a"
[hypervisor.hvb]
host = "b"
[driver_domain.dom0]
host = "a"
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
host = "a"
driver = "dom0"
[controller.rng0]
kind = "rng"
host = "b"
[guest.here]
kind = "script"
hypervisor = "hva"
script = "x.py:main"
devices.disk = "disk0"
[guest.web]
kind = "script"
hypervisor = ["hva", "hvb"]
count = 2
script = "x.py:main"
devices.rng = "rng0"
"""


def topology(text: str, base: Path = Path("/base")) -> Topology:
    """A checked topology."""
    return topology_from_text(text, Origin("t.toml", base / "t.toml", base))


def test_every_process_has_a_key_where_it_runs() -> None:
    """A driver domain has one for its devices, a guest table one for its replicas, a host one for its supervisor."""
    assert key_hosts(topology(TWO_HOSTS)) == {
        "rng0": ("b",),
        "dom0": ("a",),
        "hva": ("a",),
        "hvb": ("b",),
        "here": ("a",),
        "web": ("a", "b"),
        "@a": ("a",),
        "@b": ("b",),
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [("hva", "hva"), ("rng0", "rng0"), ("disk0", "dom0"), ("web-1", "web"), ("web-2", "web"), ("nobody", "nobody")],
)
def test_name_fits_one_key(name: str, key: str) -> None:
    """Whoever has that key may bear that name."""
    assert key_of(topology(TWO_HOSTS), name) == key


def test_only_guests_that_may_be_placed_there_connect_to_a_hypervisor() -> None:
    """Those that `iovirt scale` may put there included."""
    found = topology(TWO_HOSTS)
    assert clients_of(found, "hva") == {"here", "web"}
    assert clients_of(found, "hvb") == {"web"}


def test_only_hypervisors_whose_guests_may_need_it_connect_to_a_controller() -> None:
    """The same for the device of a driver domain."""
    found = topology(TWO_HOSTS)
    assert clients_of(found, "disk0") == {"hva"}
    assert clients_of(found, "rng0") == {"hva", "hvb"}


def test_units_are_those_of_a_hypervisors_own_guests() -> None:
    """Extents and overlays, terminals, ports; the source of entropy has no name."""
    text = """
[hypervisor.x]
[hypervisor.y]
[controller.d]
kind = "block"
image = "d.img"
size = "2MiB"
extents.one.size = "1MiB"
extents.base = { offset = "1MiB", size = "1MiB", read_only = true }
[controller.t]
kind = "console"
[controller.s]
kind = "net"
[controller.r]
kind = "rng"
[guest.a]
kind = "machine"
machine = "virt"
image = "a.bin"
hypervisor = "x"
devices = { disk = "d/one", console = "t", virtio_console = "t", net = "s" }
[guest.b]
kind = "machine"
machine = "virt"
image = "a.bin"
hypervisor = "y"
count = 2
devices = { disk = "d/base", overlay = true, console = "t", rng = "r" }
"""
    found = topology(text)
    assert units_of(found, "d") == {"x": {"one"}, "y": {"base@b-1", "base@b-2"}}
    assert units_of(found, "t") == {"x": {"a", "a.hvc0"}, "y": {"b-1", "b-2"}}
    assert units_of(found, "s") == {"x": {"a"}, "y": set()}
    assert units_of(found, "r") == {"x": set(), "y": {""}}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            '[controller.rng0]\nkind = "rng"\nendpoint = "tcp://10.0.0.1:7801"\n',
            "t.toml: controller.rng0: tcp://10.0.0.1:7801 is open to everybody, and there are no keys; set",
        ),
        (
            '[hypervisor.hv]\nendpoint = "tcp://*:7801"\n',
            "t.toml: hypervisor.hv: tcp://*:7801 is open to everybody, and there are no keys; set topology.keys",
        ),
        (
            '[host.a]\naddress = "fe80::1"\n',
            "t.toml: host.a: tcp://[fe80::1]:7800 is open to everybody, and there are no keys; set topology.keys",
        ),
    ],
)
def test_listening_beyond_this_machine_without_keys_is_refused(tables: str, message: str) -> None:
    """One line, with what to do."""
    with pytest.raises(ConfigError) as caught:
        topology(tables)
    assert str(caught.value).startswith(message)


def test_listening_beyond_this_machine_with_keys_is_accepted() -> None:
    """Keys keep strangers out."""
    assert topology(TWO_HOSTS).keys == Path("/base/keys")


def test_loopback_needs_no_keys() -> None:
    """Who is on this machine as another user may connect, as the manual says."""
    text = '[hypervisor.hv]\nendpoint = "tcp://127.0.0.1:7801"\n[host.a]\naddress = "localhost"\n'
    assert topology(text).keys is None


def test_table_with_a_process_name_is_refused_where_keys_are_by_name() -> None:
    """Guests could open sessions as that process."""
    text = '[topology]\nkeys = "keys"\n[hypervisor.web]\n[guest.web]\nkind = "script"\nhypervisor = "web"\ncount = 2\n'
    with pytest.raises(ConfigError, match=r"t.toml: guest.web: 'web' is a process's name and would share its key"):
        topology(text + 'script = "x.py:main"\n')


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.1.2.3:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("tcp://0.0.0.0:1", False),
        ("tcp://[::]:1", False),
        ("tcp://*:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://localhost.example:1", False),
        ("tcp://eth0:1", False),
    ],
)
def test_loopback_addresses_are_known(endpoint: str, loopback: bool) -> None:
    """Anything else may be reachable from outside."""
    assert is_loopback(endpoint) is loopback
