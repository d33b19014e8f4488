"""Topologies of tests: files, texts and tables in a run directory of their own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.testing.documents import merged, to_toml, write_topology
from iovirt_dist.topology.specs import BlockSpec, MachineSpec, ProgramSpec, ScriptSpec

TEXT = """
[hypervisor.hv0]
endpoint = "tcp://127.0.0.1:5555"
[controller.disk0]
kind = "block"
image = "images/disk.img"
size = "1MiB"
"""


def _disk(topology_controllers: object) -> BlockSpec:
    assert isinstance(topology_controllers, dict)
    disk = topology_controllers["disk0"]
    assert isinstance(disk, BlockSpec)
    return disk


def test_write_topology_of_the_built_in_one_lives_in_the_folder(tmp_path: Path) -> None:
    """Run directory, sockets and images are below the folder."""
    topology = write_topology(None, tmp_path, {})

    assert topology.run_dir == tmp_path
    assert topology.hypervisor("hv0").endpoint == f"ipc://{tmp_path}/sock/hv0"
    assert _disk(topology.controllers).image.parent == tmp_path


def test_write_topology_overrides_are_merged_key_by_key(tmp_path: Path) -> None:
    """What is not overridden stays."""
    topology = write_topology(None, tmp_path, {"topology": {"lease": "1s"}, "guest": {"guest": {"memory": "8MiB"}}})

    assert topology.lease_ns == 1_000_000_000
    guest = topology.guest("guest")
    assert isinstance(guest, MachineSpec)
    assert guest.memory_bytes == 8 << 20
    assert guest.command_line == "run=job,poke"


def test_write_topology_of_a_text_gets_free_ports_and_fresh_images(tmp_path: Path) -> None:
    """Two runs of one text do not meet."""
    first = write_topology(TEXT, tmp_path, {})

    assert first.hypervisor("hv0").endpoint.startswith("tcp://127.0.0.1:")
    assert first.hypervisor("hv0").endpoint != "tcp://127.0.0.1:5555"
    assert _disk(first.controllers).image == tmp_path / "disk.img"


def test_write_topology_of_a_file_uses_the_images_beside_it(tmp_path: Path) -> None:
    """Paths in a file are relative to the file."""
    source = tmp_path / "there" / "two.toml"
    source.parent.mkdir()
    source.write_text(TEXT)

    topology = write_topology(source, tmp_path, {})

    assert _disk(topology.controllers).image == source.parent / "images/disk.img"


def test_write_topology_places_scripts_and_files_and_leaves_modules(tmp_path: Path) -> None:
    """A script's file and a program's files are beside the topology file; a module is where Python finds it."""
    source = tmp_path / "there" / "t.toml"
    source.parent.mkdir()
    guests = {
        "file": {"kind": "script", "hypervisor": "hv0", "script": "load.py:main", "parameters": {"mix": [1, 2.5]}},
        "module": {"kind": "script", "hypervisor": "hv0", "script": "a.b:main"},
        "program": {"kind": "program", "hypervisor": "hv0", "image": "cat", "files": {"/etc": "etc", "/usr": "/usr"}},
    }
    source.write_text(to_toml({"hypervisor": {"hv0": {}}, "guest": guests}))

    topology = write_topology(source, tmp_path, {})
    by_file, by_module, program = (topology.guest(name) for name in guests)

    assert isinstance(by_file, ScriptSpec)
    assert isinstance(by_module, ScriptSpec)
    assert isinstance(program, ProgramSpec)
    assert (by_file.file, by_file.parameters) == (source.parent / "load.py", {"mix": [1, 2.5]})
    assert (by_module.file, by_module.module) == (None, "a.b")
    assert (program.image, program.files) == (
        source.parent / "cat",
        {"/etc": source.parent / "etc", "/usr": Path("/usr")},
    )


def test_write_topology_with_a_wrong_key_names_it(tmp_path: Path) -> None:
    """The checks are those of every topology."""
    with pytest.raises(ConfigError, match="leese"):
        write_topology(None, tmp_path, {"topology": {"leese": "1s"}})


def test_to_toml_round_trips_names_and_text_that_need_quotes() -> None:
    """Dots, quotes, backslashes and line ends survive."""
    tables = {"a": {"b.c": {"text": 'x"\\\n', "number": 5, "flag": True}}, "top": "é"}

    assert tomllib.loads(to_toml(tables)) == tables


def test_merged_leaves_its_arguments_alone() -> None:
    """Tables of one test do not leak into the next."""
    base = {"guest": {"a": {"memory": "1MiB"}}}

    result = merged(base, {"guest": {"a": {"memory": "2MiB"}, "b": {}}})

    assert base == {"guest": {"a": {"memory": "1MiB"}}}
    assert result == {"guest": {"a": {"memory": "2MiB"}, "b": {}}}
