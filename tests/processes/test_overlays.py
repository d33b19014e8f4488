"""Guests that share a base, each with a copy-on-write overlay: in processes, and after a SIGKILL of the controller."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import LiveTopology, TopologyFactory

KIB = 1024
BASE = random.Random(5).randbytes(256 * KIB)
VERIFY = "iovirt_dist.guest.script.verify:main"


def tables(image: Path, guests: dict[str, dict[str, Any]], **block: Any) -> dict[str, Any]:
    """A topology whose guests have overlays over one image."""
    devices = {"disk": "disk0", "overlay": True}
    return {
        "topology": {"lease": "1s"},
        "hypervisor": {"hv0": {}},
        "controller": {"disk0": {"kind": "block", "image": str(image), **block}, "tty0": {"kind": "console"}},
        "guest": {
            name: {"hypervisor": "hv0", **guest, "devices": {**devices, **guest.get("devices", {})}}
            for name, guest in guests.items()
        },
    }


def job(result_kib: int) -> dict[str, Any]:
    """The bundled guest OS reads 64 KiB, writes part of them back, and stores what it found."""
    command_line = f"run=job kib=64 bs=4096 write=25 result={result_kib}"
    machine = {"kind": "machine", "machine": "pc", "image": "bundled:guestos", "level": "driver"}
    return {**machine, "command_line": command_line, "devices": {"console": "tty0"}}


def listed(topology: LiveTopology, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What ``iovirt disk ls`` tells of each disk."""
    capsys.readouterr()
    main(["disk", "ls", "--file", str(topology.topology.source), "--json"])
    return {row["disk"]: row for row in json.loads(capsys.readouterr().out)["disks"]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A base with random content."""
    path = tmp_path / "base.img"
    path.write_bytes(BASE)
    return path


async def test_guests_on_one_base_see_their_own_writes_only(
    iovirt: TopologyFactory, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base is the same byte for byte, and an export is what the guest has seen, with its result block."""
    topology = await iovirt.up(tables(image, {"a": job(64), "b": job(128)}))
    file = str(topology.topology.source)
    for name in ("a", "b"):
        await topology.console(name).expect(r"^init: all done$")

    up = listed(topology, capsys)
    refused = main(["disk", "export", "disk0/all@a", str(tmp_path / "no.img"), "--file", file])
    said = capsys.readouterr().err
    pid = topology.controller("disk0").pid
    await topology.stop()
    down = listed(topology, capsys)
    exports = {name: tmp_path / f"{name}.img" for name in ("a", "b")}
    for name, path in exports.items():
        assert main(["disk", "export", f"disk0/all@{name}", str(path), "--file", file]) == 0

    assert {name: (row["state"], row["pid"]) for name, row in up.items()} == dict.fromkeys(
        ("all", "all@a", "all@b"), ("in use", pid)
    )
    assert {row["state"] for row in down.values()} == {"free"}
    assert (refused, f"is in use by process {pid}" in said, (tmp_path / "no.img").exists()) == (1, True, False)
    assert image.read_bytes() == BASE
    digest = hashlib.sha256(BASE[: 64 * KIB]).hexdigest()
    result = f"iovirt-dist job result\nsha256 {digest}\nkib 64\n".encode().ljust(512, b"\0")
    assert exports["a"].read_bytes() == BASE[: 64 * KIB] + result + BASE[64 * KIB + 512 :]
    assert exports["b"].read_bytes() == BASE[: 128 * KIB] + result + BASE[128 * KIB + 512 :]
    assert down["all@a"]["allocated_bytes"] < 64 * KIB + 32 * KIB


@pytest.mark.parametrize("durability", ["write-through", "write-back"])
async def test_kill_of_the_controller_under_load_loses_no_write(
    iovirt: TopologyFactory, image: Path, durability: str
) -> None:
    """Writes of single sectors, which share clusters with the base: all that was acknowledged is read again."""
    parameters = {"block": "512B", "blocks": 500, "depth": 8, "requests": 600, "seconds": 60.0}
    guest = {"kind": "script", "script": VERIFY, "parameters": parameters}
    topology = await iovirt.up(tables(image, {"a": guest, "b": guest}, durability=durability))
    for name in ("a", "b"):
        await topology.guest(name).wait_status(lambda status: status.content.get("results", {}).get("writes", 0) > 50)

    topology.controller("disk0").kill()
    await topology.controller("disk0").restart()
    results = [(await topology.guest(n).wait_state("stopped", 60)).content["results"] for n in ("a", "b")]

    assert [(found["wrong"], found["failed"]) for found in results] == [(0, 0)] * 2
    assert min(found["requests"] for found in results) >= 600
    assert image.read_bytes() == BASE
