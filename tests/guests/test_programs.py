"""Unmodified busybox as program guests of running topologies: third-party proof of the system-call level.

The disk is the file system that U-Boot reads at the other two levels; a program's /dev/vda is the part of it where the
file's data lies. What each applet prints is in test_busybox.py, without processes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import BUSYBOX, KIB, MKFS_EXT4, data_offset, disk, ext4_image, needs, settled, typed

pytestmark = needs(MKFS_EXT4, *BUSYBOX.values())

SIZE = 128 * KIB
"""Of /dev/vda: sha256sum reads 4 KiB a call on some builds."""
MOTD = b"a line of the topology's own file\n"
DUMPED = r"^00000000  ((?:[0-9a-f]{2} +){16})"
ABI = {"amd64": "linux_x86_64", "i386": "linux_i386", "riscv64": "linux_riscv64"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file system."""
    return ext4_image(tmp_path_factory.mktemp("ext4"))


@pytest.fixture(params=list(BUSYBOX))
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn, by Debian's name."""
    name: str = request.param
    return name


async def started(iovirt: TopologyFactory, image: bytes, architecture: str, **commands: str) -> LiveTopology:
    """Start a guest for each command (an applet and its arguments), all on one disk, terminals and entropy."""
    guests = {
        name: {
            "kind": "program",
            "hypervisor": "hv0",
            "image": str(BUSYBOX[architecture]),
            "arguments": ["busybox", *command.split()],
            "files": {"/etc/motd": "motd"},
            "devices": {"disk": f"disk0/{name}", "console": "tty0", "rng": "rng0"},
        }
        for name, command in commands.items()
    }
    offset = data_offset(image)
    extents = {name: {"offset": offset + SIZE * n, "size": SIZE} for n, name in enumerate(commands)}
    controllers = {
        "disk0": {"kind": "block", "image": "disk0.img", "size": len(image), "extents": extents},
        "tty0": {"kind": "console"},
        "rng0": {"kind": "rng"},
    }
    topology = iovirt.prepare({"hypervisor": {"hv0": {}}, "controller": controllers, "guest": guests})
    disk(topology).write_bytes(image)
    (topology.run_dir.path / "motd").write_bytes(MOTD)
    await topology.start()
    return topology


def listed(topology: LiveTopology, guest: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What ``iovirt ps --json`` says of a guest."""
    capfd.readouterr()
    assert main(["ps", "--json", "--file", str(topology.topology.source)]) == 0
    rows: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["processes"]
    return next(row for row in rows if row["name"] == guest)


async def test_sha256sum_of_the_disk_equals_the_hosts(iovirt: TopologyFactory, image: bytes, architecture: str) -> None:
    """Every byte comes through system calls and nothing else, and both sides count as many of them."""
    topology = await started(iovirt, image, architecture, sum="sha256sum /dev/vda")

    found = await topology.console().expect(r"^([0-9a-f]{64})  /dev/vda$")
    await topology.guest().wait_state("stopped")
    guest = await settled(topology, "sum")

    start = data_offset(image)
    assert found[1] == hashlib.sha256(image[start : start + SIZE]).hexdigest()
    assert guest["disk_bytes_read"] == SIZE
    assert guest["traps"] == guest["traps_at_report"] == guest["guest_traps"]
    assert guest["traps"]["system_call"] == sum(guest["traps"].values()) == sum(guest["system_calls"]["calls"].values())
    assert guest["system_calls"]["abi"] == ABI[architecture]
    assert guest["malformed"] == 0


async def test_dd_writes_land_in_the_image_and_nowhere_else(
    iovirt: TopologyFactory, image: bytes, architecture: str
) -> None:
    """From a file of the topology to a place that is aligned to nothing; stable before dd ends."""
    command = "dd if=/etc/motd of=/dev/vda bs=1 seek=1021 conv=notrunc,fsync"
    topology = await started(iovirt, image, architecture, write=command)

    await topology.console().expect(r"^34\+0 records out$")
    ended = await topology.guest().wait_state("stopped")

    at = data_offset(image) + 1021
    assert ended.reason == "exited with status 0"
    assert disk(topology).read_bytes() == image[:at] + MOTD + image[at + len(MOTD) :]


async def test_programs_at_once_read_their_files_end_with_their_status_and_know_no_other_disk(
    iovirt: TopologyFactory, image: bytes, architecture: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One prints a file, one fails, as ``iovirt ps`` shows; one would read on where another's disk begins."""
    topology = await started(
        iovirt,
        image,
        architecture,
        end=f"dd if=/dev/vda of=/dev/null bs=1k skip={SIZE // KIB - 1}",
        show="cat /etc/motd",
        fail="cat /no/such/file",
    )

    await topology.console("show").expect(rf"^{MOTD.decode()}")
    await topology.console("fail").expect(r"^cat: can't open '/no/such/file': No such file or directory$")
    await topology.console("end").expect(r"^1\+0 records in$")
    for name in ("show", "fail", "end"):
        await topology.guest(name).wait_state("stopped")

    failed = listed(topology, "fail", capfd)
    assert (failed["guest"], failed["level"], failed["state"]) == ("program", "syscall", "stopped")
    assert failed["reason"] == "exited with status 1"
    assert listed(topology, "show", capfd)["reason"] == "exited with status 0"


async def test_typed_lines_reach_the_program(iovirt: TopologyFactory, image: bytes, architecture: str) -> None:
    """Echo, a correction, and ^D, typed with ``iovirt console``."""
    topology = await started(iovirt, image, architecture, count="wc -c")

    shown = await typed(topology, "count", "helxx\x7f\x7flo\r\x04", r"^\d+$")
    ended = await topology.guest().wait_state("stopped")

    assert shown.splitlines()[-1] == "6"
    assert ended.reason == "exited with status 0"


async def test_hexdump_shows_bytes_of_the_entropy_source(
    iovirt: TopologyFactory, image: bytes, architecture: str
) -> None:
    """Two programs read /dev/hwrng of one source, and get different bytes."""
    command = "hexdump -C -n 16 /dev/hwrng"
    topology = await started(iovirt, image, architecture, one=command, two=command)

    one = await topology.console("one").expect(DUMPED)
    two = await topology.console("two").expect(DUMPED)
    await topology.controller("rng0").wait_status(lambda status: bool(status.content["bytes_given"] >= 2 * 16))

    assert one[1] != two[1]
    assert len(set(one[1].split())) > 4
