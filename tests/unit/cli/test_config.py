"""The resolved topology as shown and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iovirt_dist.cli.config import config_rows, show_config
from iovirt_dist.cli.main import main
from iovirt_dist.topology import Origin, default_text, topology_from_text

TEXT = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
extents.a = { size = "64KiB", read_only = true }
[guest.alice]
kind = "machine"
hypervisor = "hv0"
image = "x.bin"
devices.disk = "disk0"
[guest.bob]
kind = "machine"
machine = "pc"
hypervisor = "hv0"
image = "bundled:guestos"
"""


def test_config_shows_each_process_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes with units, references by name; a missing image is an error after the table."""
    topology = topology_from_text(TEXT, Origin("t.toml", tmp_path / "t.toml", tmp_path))
    assert show_config(topology, as_json=False) == 2
    printed = capsys.readouterr()
    assert "d.img 1MiB write-through: a 64KiB@0B ro" in printed.out
    assert "pc 32MiB x.bin operation on hv0 disk=disk0/a" in printed.out
    assert "pc 32MiB bundled:guestos operation on hv0" in printed.out
    assert printed.err == f"iovirt: error: guest alice: {tmp_path}/x.bin: no such image file; set image\n"


def test_config_shows_a_virtual_machine_and_its_vmm(capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines: who serves its devices, and what runs it."""
    text = '[hypervisor.hv0]\n[guest.linux]\nkind = "vm"\nvmm = "external"\nhypervisor = "hv0"\n'
    text += text[text.index("[guest") :].replace("linux", "other").replace("external", "uml")
    show_config(topology_from_text(text, Origin("t.toml", None, Path("/base"))), as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["linux", "guest", "vm", "256MiB", "external", "driver", "on", "hv0"] in lines
    assert ["other", "guest", "vm", "256MiB", "uml", "driver", "on", "hv0"] in lines
    assert ["other.vmm", "vmm", "uml", "of", "other"] in lines


def test_config_json_is_the_whole_topology(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that the processes read, in base units."""
    (tmp_path / "x.bin").touch()
    topology = topology_from_text(TEXT, Origin("t.toml", tmp_path / "t.toml", tmp_path))
    assert show_config(topology, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["guests"]["alice"]["memory_bytes"] == 32 << 20
    assert document["controllers"]["disk0"]["image"] == f"{tmp_path}/d.img"
    assert document["missing_images"] == []


NETWORK = """
[hypervisor.hv0]
[controller.sw0]
kind = "net"
responder = { address = "10.0.0.1/24" }
[guest.alice]
kind = "machine"
hypervisor = "hv0"
image = "bundled:guestos"
devices = { net = "sw0", mac = "02:00:00:00:00:0A" }
"""


def test_config_shows_a_switch_and_who_is_plugged_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses as people write them, also in JSON."""
    topology = topology_from_text(NETWORK, Origin("t.toml", tmp_path / "t.toml", tmp_path))
    show_config(topology, as_json=False)
    printed = capsys.readouterr().out
    show_config(topology, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert "mtu 1500 host 10.0.0.1/24" in printed
    assert "operation on hv0 net=sw0" in printed
    assert document["guests"]["alice"]["net"]["mac"] == "02:00:00:00:00:0a"
    assert document["controllers"]["sw0"]["responder"]["interface"] == "10.0.0.1/24"


@pytest.mark.parametrize("command", ["config", "up"])
def test_missing_image_is_one_line_and_exit_2(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check finds what the start would find, in the same words."""
    (tmp_path / "t.toml").write_text(
        '[hypervisor.hv0]\n[guest.a]\nkind = "machine"\nhypervisor = "hv0"\nimage = "nope.elf"\n'
    )
    assert main([command, "-f", str(tmp_path / "t.toml")]) == 2
    assert capsys.readouterr().err == f"iovirt: error: guest a: {tmp_path}/nope.elf: no such image file; set image\n"


@pytest.mark.parametrize("command", ["config", "up"])
def test_empty_topology_is_an_error_and_exit_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to start."""
    (tmp_path / "t.toml").write_text('[topology]\nname = "x"\n')
    assert main([command, "-f", str(tmp_path / "t.toml")]) == 2
    printed = capsys.readouterr()
    assert printed.err == (
        f"iovirt: error: {tmp_path}/t.toml: the topology has no guest, no hypervisor and no controller; "
        "add some; 'iovirt config --toml' prints an example\n"
    )
    assert printed.out == ""


def test_config_says_what_guests_may_have_of_their_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name as JSON; in the table where it is not the default."""
    text = default_text().replace('devices.console = "tty0"', 'devices.console = "tty0"\nqos.disk.iops = 1000')
    (tmp_path / "t.toml").write_text(text)

    main(["config", "--file", str(tmp_path / "t.toml")])
    table = capsys.readouterr().out
    main(["config", "--file", str(tmp_path / "t.toml"), "--json"])
    document = json.loads(capsys.readouterr().out)

    assert "disk.qos=iops:1000,burst:20ms" in table
    assert document["guests"]["guest"]["qos"]["disk"]["iops"] == 1000
    assert document["controllers"]["disk0"]["scheduler"] == "drr"


DOMAIN = """
[hypervisor.hv0]
[driver_domain.dom0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
driver = "dom0"
[controller.rng0]
kind = "rng"
[controller.tty0]
kind = "console"
driver = "dom0"
"""


def test_config_lists_devices_below_the_domain_that_serves_them(tmp_path: Path) -> None:
    """The native one is a process."""
    topology = topology_from_text(DOMAIN, Origin("t.toml", tmp_path / "t.toml", tmp_path))
    assert config_rows(topology) == [
        ("rng0", "rng", ""),
        ("dom0", "driver domain", "serves disk0, tty0"),
        ("disk0", "block", "in dom0 d.img 1MiB write-through: all 1MiB@0B"),
        ("tty0", "console", "in dom0"),
        ("hv0", "hypervisor", ""),
    ]


def test_config_shows_the_uplink_of_a_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what else it has."""
    text = '[controller.sw0]\nkind = "net"\nuplink = "guests0"\n'
    show_config(topology_from_text(text, Origin("test", None, Path("/tmp"))), as_json=False)
    assert "mtu 1500 uplink guests0" in capsys.readouterr().out
