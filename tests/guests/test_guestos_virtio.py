"""The bundled guest OS with a virtio disk, in a topology of real processes: the driver level."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import KIB, MIB, disk, fill, machine, pattern, settled, topology_of, typed

DEVICES = {"disk": "disk0/all", "console": "tty0"}


async def _started(iovirt: TopologyFactory, command_line: str, level: str = "driver") -> LiveTopology:
    guest = machine("pc", "bundled:guestos", DEVICES, command_line=command_line, level=level)
    topology = iovirt.prepare(topology_of({"guest": guest}))
    fill(topology, pattern(2 * MIB))
    await topology.start()
    return topology


async def _ended(iovirt: TopologyFactory, command_line: str, level: str = "driver") -> tuple[dict[str, Any], bytes]:
    """Run the programs to their end; return what the hypervisor says of the guest, and the disk."""
    topology = await _started(iovirt, command_line, level)
    await topology.console().expect(r"^init: all done$")
    return await settled(topology, "guest"), disk(topology).read_bytes()


async def test_job_on_virtio_ends_idle_with_equal_counts_and_the_right_result(iovirt: TopologyFactory) -> None:
    """At most one doorbell for each call of `job`; then nothing more, though nobody halted the machine."""
    content = pattern(MIB)
    topology = await _started(iovirt, "run=job kib=1024 bs=65536")

    await topology.console().expect(r"^vda: virtio disk, 32768 sectors$")
    report = await topology.console().expect(
        r"^job: result sha256=([0-9a-f]{64}) bytes_read=1048576 .* reads=16 writes=0"
    )
    await topology.console().expect(r"^init: all done$")
    guest = await settled(topology, "guest")

    assert report[1] == hashlib.sha256(content).hexdigest()
    assert disk(topology).read_bytes()[MIB:][:512].startswith(b"iovirt-dist job result\nsha256 " + report[1].encode())
    assert 0 < guest["traps"]["doorbell"] <= 19, "16 reads, the result block written, flushed, and read back"
    assert guest["traps"] == guest["traps_at_report"] == guest["guest_traps"]
    assert guest["state"] == "halted"
    assert guest["disk_requests"] == 19
    assert guest["malformed"] == 0


async def test_same_job_at_all_three_levels_leaves_the_same_disk(iovirt: TopologyFactory) -> None:
    """`job` does not know which driver it has, or that it has none; the hypervisor does (C11, C14)."""
    driver, by_driver = await _ended(iovirt, "run=job kib=128 bs=8192 write=25")
    operation, by_operation = await _ended(iovirt, "run=job kib=128 bs=8192 write=25", "operation")
    syscall, by_syscall = await _ended(iovirt, "run=job kib=128 bs=8192 write=25", "syscall")

    assert by_driver == by_operation == by_syscall
    assert driver["traps"]["doorbell"] > 0 == operation["traps"]["doorbell"] == syscall["traps"]["doorbell"]
    assert operation["touched"]["ata"] > 5 * driver["touched"]["virtio-blk"]


async def test_random_bytes_come_through_the_guest_kernels_own_driver(iovirt: TopologyFactory) -> None:
    """/dev/hwrng of the guest is a virtio entropy device, whatever the level of its disk (C7)."""
    guest = machine("pc", "bundled:guestos", {"console": "tty0", "rng": "rng0"}, command_line="run=random,random")
    tables = topology_of({"guest": guest})
    tables["controller"]["rng0"] = {"kind": "rng"}
    topology = await iovirt.up(tables)

    first = await topology.console().expect(r"^random: ([0-9a-f]{64})$")
    second = await topology.console().expect(r"^random: ([0-9a-f]{64})$")
    await topology.console().expect(r"^init: all done$")
    status = await settled(topology, "guest")

    assert first[1] != second[1]
    assert status["traps"]["doorbell"] in (1, 2), "the first one may leave as a store, before its queue is armed"


async def test_restart_of_the_disks_controller_in_the_middle_of_a_job_is_not_seen(iovirt: TopologyFactory) -> None:
    """Requests that are under way when the controller is killed are done by its next life."""
    topology = await _started(iovirt, "run=job kib=1024 bs=1024 result=none")
    await topology.hypervisor().wait_status(lambda status: status.content["guests"]["guest"]["disk_requests"] > 20)

    topology.controller("disk0").kill()
    await topology.controller("disk0").restart()
    done = await topology.console().expect(r"^job: read 1024 KiB in 1024 requests, sha256 ([0-9a-f]{64})", 60)

    assert done[1] == hashlib.sha256(pattern(MIB)).hexdigest()


async def test_poke_at_virtio_registers_reaches_no_device(iovirt: TopologyFactory) -> None:
    """A program's doorbell is a page fault in its own guest; the hypervisor hears of none (C5)."""
    topology = await _started(iovirt, "run=poke,echo")

    await topology.console().expect(r"^poke: store to virtio notify register: refused \(signal 11\)$")
    await topology.console().expect(r"^poke: 11 of 11 refused$")
    await typed(topology, "guest", "exit\r", r"^echo: done$")
    guest = await settled(topology, "guest")

    assert guest["traps"]["doorbell"] == 0


@pytest.mark.parametrize("block", [512, MIB])
async def test_job_with_the_smallest_and_the_largest_block_gives_the_same_checksum(
    iovirt: TopologyFactory, block: int
) -> None:
    """A call of a MiB is one request, as is one of a sector."""
    kib = 64 if block == 512 else 2048
    guest, _ = await _ended(iovirt, f"run=job kib={kib} bs={block} result=none")

    assert guest["disk_requests"] == kib * KIB // block
    assert guest["disk_bytes_read"] == kib * KIB


async def test_disk_that_ends_early_is_an_error_of_the_call_and_no_more(iovirt: TopologyFactory) -> None:
    """The capacity is the device's; the guest goes on."""
    guest = machine("pc", "bundled:guestos", DEVICES, command_line="run=job,echo", level="driver")
    topology = await iovirt.up(topology_of({"guest": guest}, size="100KiB"))

    await topology.console().expect(r"^job: cannot read /dev/vda: error 6$")
    answer = await typed(topology, "guest", "still here\r", r"^echo: still here$")

    assert answer.endswith("echo: still here\n")
