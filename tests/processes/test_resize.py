"""``iovirt disk resize`` in processes: a running guest sees the larger disk, and no restart loses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import LiveTopology, TopologyFactory

MIB = 1 << 20

SCRIPT = '''
from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_disk

async def grow(guest: ScriptGuest) -> None:
    """Waits until its disk has as many sectors as a parameter says, and uses the last one."""
    disk = await open_disk(guest.virtio(VirtioSlot.DISK), interrupts=True)
    wanted = guest.parameters["sectors"]
    guest.results["first"] = disk.config.capacity
    while (capacity := await disk.measure()) < wanted:
        guest.say(f"has {capacity} sectors")
        await disk.device.configured
    await disk.write(wanted - 1, b"last".ljust(512))
    await disk.flush()
    guest.results["last"] = (await disk.read(wanted - 1, 1))[:4].decode()
    guest.say("done")
'''


def tables(script: Path, sectors: int, size: str = "1MiB") -> dict[str, Any]:
    """A topology with one script guest."""
    return {
        "topology": {"lease": "1s"},
        "hypervisor": {"hv0": {}},
        "controller": {"disk0": {"kind": "block", "image": "disk0.img", "size": size}},
        "guest": {
            "script": {
                "kind": "script",
                "hypervisor": "hv0",
                "script": f"{script}:grow",
                "parameters": {"sectors": sectors},
                "devices": {"disk": "disk0"},
            }
        },
    }


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The file above."""
    path = tmp_path / "grower.py"
    path.write_text(SCRIPT)
    return path


def resize(topology: LiveTopology, size: str) -> int:
    """Make its disk larger; returns the exit status."""
    return main(["disk", "resize", "disk0", size, "--file", str(topology.topology.source)])


async def test_running_guest_sees_the_larger_disk_and_uses_its_end(iovirt: TopologyFactory, script: Path) -> None:
    """The configuration changes under its driver; nothing is restarted."""
    topology = await iovirt.up(tables(script, 3 * MIB // 512))
    await topology.guest().wait_log("has 2048 sectors")

    status = resize(topology, "3MiB")
    told = await topology.guest().wait_state("stopped")

    assert status == 0
    assert told.content["results"] == {"first": 2048, "last": "last"}
    image = (topology.run_dir.path / "disk0.img").read_bytes()
    assert (len(image), image[-512:-508]) == (3 * MIB, b"last")


@pytest.mark.parametrize("victim", ["disk0", "hv0"])
async def test_resize_while_a_process_is_dead_is_seen_when_it_is_back(
    iovirt: TopologyFactory, script: Path, victim: str
) -> None:
    """The size is the image's; who comes back asks for it."""
    topology = await iovirt.up(tables(script, 3 * MIB // 512))
    await topology.guest().wait_log("has 2048 sectors")
    process = topology.process(victim)

    process.kill()
    status = resize(topology, "3MiB")
    await process.restart()
    told = await topology.guest().wait_state("stopped")

    assert status == 0
    assert told.content["results"]["last"] == "last"


async def test_disk_keeps_its_size_over_the_end_of_the_topology(
    iovirt: TopologyFactory, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the topology says of a new image; and it does not become smaller."""
    topology = await iovirt.up(tables(script, 2048))
    await topology.guest().wait_state("stopped")
    await topology.stop()

    larger = resize(topology, "2MiB")
    smaller = resize(topology, "1MiB")
    error = capsys.readouterr().err

    assert (larger, smaller) == (0, 1)
    assert "disk0/all: has 2MiB and cannot be made smaller" in error.replace("'", "")
