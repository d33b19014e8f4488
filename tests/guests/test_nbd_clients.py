"""Third-party NBD clients at the gateway: libnbd's tools, QEMU's, and fio, which checks what it has written."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import MIB, disk, pattern

PACKAGES = {"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "qemu-img": "qemu-utils", "fio": "fio"}
_MISSING = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
pytestmark = [
    pytest.mark.firmware,
    pytest.mark.skipif(bool(_MISSING), reason=f"install the Debian packages {' '.join(_MISSING)}"),
]

SIZE = 32 * MIB
WITHIN_S = 90.0


async def up(iovirt: TopologyFactory, content: bytes = b"", **block: Any) -> LiveTopology:
    """Start a gateway with a disk of this content, and wait until clients can use it."""
    topology = iovirt.prepare(
        {
            "hypervisor": {"hv0": {}},
            "controller": {
                "disk0": {"kind": "block", "image": "disk0.img", "size": SIZE, "durability": "write-back", **block}
            },
            "guest": {"nbd": {"kind": "nbd", "hypervisor": "hv0", "devices": {"disk": "disk0"}}},
        }
    )
    with disk(topology).open("wb") as image:
        image.write(content)
        image.truncate(SIZE)
    await topology.start()
    await topology.guest().wait_status(lambda status: status.content["nbd"]["ready"])
    return topology


def uri(topology: LiveTopology) -> str:
    """The gateway's address, as `iovirt ps` shows it."""
    return f"nbd+unix:///nbd?socket={topology.run_dir.path / 'nbd.nbd'}"


async def run(*command: str, cwd: Path) -> str:
    """Run a program; returns what it printed.

    Raises:
        AssertionError: It fails, or takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"{command} takes too long") from None
    text = output.decode("utf-8", "replace")
    assert process.returncode == 0, f"{command}: {text}"
    return text


async def test_nbdinfo_finds_size_name_and_abilities(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """It asks with INFO and GO, and lists the export."""
    topology = await up(iovirt)

    info = json.loads(await run("nbdinfo", "--json", uri(topology), cwd=tmp_path))
    listed = json.loads(await run("nbdinfo", "--json", "--list", uri(topology), cwd=tmp_path))

    (export,) = info["exports"]
    assert info["structured"]
    assert (export["export-name"], export["export-size"], export["block_size_minimum"]) == ("nbd", SIZE, 512)
    assert export["can_multi_conn"]
    assert not export["is_read_only"]
    assert [one["export-name"] for one in listed["exports"]] == ["nbd"]


async def test_nbdcopy_copies_there_and_back(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """With several connections and long requests; holes are cleared, not written."""
    topology = await up(iovirt, b"\xff" * SIZE)
    content = pattern(12 * MIB, 1) + bytes(12 * MIB) + pattern(8 * MIB, 2)
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content)

    await run("nbdcopy", "--flush", str(source), uri(topology), cwd=tmp_path)
    await run("nbdcopy", uri(topology), str(back), cwd=tmp_path)

    assert disk(topology).read_bytes() == content
    assert back.read_bytes() == content


async def test_qemu_img_converts_there_and_compares(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """A QCOW2 image becomes the disk, and is equal to it."""
    topology = await up(iovirt)
    content = pattern(20 * MIB, 3)
    raw, qcow = tmp_path / "raw", tmp_path / "image.qcow2"
    raw.write_bytes(content + bytes(SIZE - len(content)))
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow), cwd=tmp_path)

    await run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", str(qcow), uri(topology), cwd=tmp_path)
    compared = await run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(qcow), uri(topology), cwd=tmp_path)

    assert "identical" in compared
    assert disk(topology).read_bytes()[: len(content)] == content


@pytest.mark.parametrize("victim", ["", "disk0", "hv0"])
async def test_fio_verifies_what_it_has_written(iovirt: TopologyFactory, tmp_path: Path, victim: str) -> None:
    """Random writes of mixed sizes, read back by checksum; one of the processes below is replaced meanwhile."""
    topology = await up(iovirt)
    command = (
        *("fio", "--name=verify", "--ioengine=nbd", f"--uri={uri(topology)}", "--rw=randrw", "--iodepth=32"),
        *("--bsrange=512-128k", "--bs_unaligned=0", "--blockalign=512", "--size=24m", "--verify=crc32c"),
        *("--verify_fatal=1", "--fsync=100", f"--aux-path={tmp_path}"),
    )

    fio = asyncio.create_task(run(*command, cwd=tmp_path))
    if victim:
        await topology.guest().wait_status(lambda status: status.content["nbd"]["requests"] > 20)
        await topology.process(victim).restart()
    report = await fio

    assert "err= 0" in report
