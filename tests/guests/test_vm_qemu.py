"""QEMU with an unmodified cloud kernel: its devices, a load that verifies, and that load while processes are killed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import pytest
from pytest_asyncio import fixture

from iovirt_dist.cli.main import main
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from iovirt_dist.testing.processes import ProcessHandle
from tests.guests.linux_vm import Shell, tables, vm
from tests.guests.support import BLKDISCARD, FIO, MIB, disk, needs, needs_vmm, typed

pytestmark = [
    *needs(FIO, BLKDISCARD),
    needs_vmm("qemu"),
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]

DISK_MIB = 64
FIO_VERIFY = (
    "/bin/fio --name=v --filename=/dev/vda --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=32"
    " --verify=crc32c --verify_fatal=1 --fsync=64"
)
"""Writes each block of a range once in random order, 32 at a time, then reads and checks all of them."""

FIO_LOOP = (
    "seed=0; while [ ! -e /stop ]; do seed=$((seed + 1));"
    f" {FIO_VERIFY} --size=16M --randseed=$seed --minimal >> /runs || break; done; echo $? > /status"
)
"""Each time with other content, so that a block of an earlier time is found, too."""

_ERROR = 4
_LATENCIES_US = (14, 55)
"""Fields of fio's terse output (version 3): error, and the longest completion latency of reads and of writes."""

KILLS = 10
GOES_ON = 100
"""Completed requests after which the disk counts as working again."""

RECOVERY_S = 120.0
LOGIN_S = 60.0


class Linux:
    """The guest, booted once for all tests of this module.

    Attributes:
        topology: Where it is.
        shell: Its shell.
    """

    def __init__(self, topology: LiveTopology) -> None:
        self.topology = topology
        self.shell = Shell(topology, "q")

    async def completed(self, since_ns: int = 0) -> int:
        """Completed commands of the hypervisor's queue pair at the disk, as told after `since_ns` (wall clock)."""

        def told(status: ProcessStatus) -> bool:
            return status.updated_ns > since_ns and "disk0" in status.content["controllers"]

        status = await self.topology.hypervisor().wait_status(told, RECOVERY_S, "told of its disk")
        return int(status.content["controllers"]["disk0"]["completed"])

    async def recovery_s(self, process: ProcessHandle) -> float:
        """Kill a process and start it again; returns after how many seconds requests were completed again."""
        began = time.monotonic()
        process.kill()
        await process.restart()
        await self.goes_on()
        return time.monotonic() - began

    async def goes_on(self) -> None:
        """Wait until requests are completed that were not when this was called."""
        target = await self.completed(time.time_ns()) + GOES_ON
        await self.topology.hypervisor().wait_status(
            lambda status: status.content["controllers"]["disk0"]["completed"] >= target, RECOVERY_S, "completing"
        )


@fixture(scope="module", loop_scope="module")
async def linux(request: pytest.FixtureRequest) -> AsyncIterator[Linux]:
    """A guest with two processors, a disk of two queues, a source of entropy, a network card and a console."""
    initrd = request.getfixturevalue("fio_initrd")
    guest = vm("qemu", initrd, {"disk": "disk0", "rng": "rng0", "net": "net0"}, memory="512MiB", cpus=2, queues=2)
    block = {"kind": "block", "image": "disk0.img", "size": f"{DISK_MIB}MiB"}
    net = {"kind": "net", "responder": {"address": "10.0.0.254/24"}}
    factory = TopologyFactory()
    booted = Linux(await factory.up(tables({"q": guest}, disk0=block, rng0={"kind": "rng"}, net0=net)))
    try:
        await booted.shell.ready()
        yield booted
    finally:
        problems = await factory.down()
    assert problems == []


async def test_disk_has_a_queue_for_each_processor_and_takes_discards(linux: Linux) -> None:
    """The kernel's own view of the device."""
    queues = await linux.shell.run("ls -1 /sys/block/vda/mq; nproc")
    facts = await linux.shell.run("cd /sys/block/vda; cat size ro queue/discard_max_bytes queue/write_zeroes_max_bytes")

    sectors, read_only, *limits = map(int, facts.splitlines())
    assert queues == "0\n1\n2\n"
    assert (sectors * 512, read_only) == (disk(linux.topology).stat().st_size, 0)
    assert min(limits) > 0


async def test_fio_finds_what_it_wrote_at_depth_32(linux: Linux) -> None:
    """Random writes with flushes, read back and checked by CRC; both queues are in use."""
    await linux.shell.run(f"{FIO_VERIFY} --size=8M --numjobs=2 --offset_increment=8M --minimal")
    lines = await linux.shell.run("grep virtio0-req /proc/interrupts")

    interrupts = [sum(map(int, line.split()[1:3])) for line in lines.splitlines()]
    assert len(interrupts) == 2
    assert min(interrupts) > 0


async def test_requests_of_as_many_segments_as_there_may_be_are_taken(linux: Linux) -> None:
    """Pages written one by one lie anywhere: the kernel makes chains as long as its ring takes."""
    await linux.shell.run("yes scattered | dd of=/dev/vda bs=1M count=4 iflag=fullblock conv=fsync")

    written = await linux.shell.run("yes scattered | head -c 4194304 | md5sum")
    read = await linux.shell.run("echo 3 > /proc/sys/vm/drop_caches; head -c 4194304 /dev/vda | md5sum")

    assert read == written


async def test_discard_and_write_zeroes_empty_the_disk_and_its_image(linux: Linux) -> None:
    """What is discarded takes no place on the host any more; both read as zeroes, and what is behind them stays."""
    image = disk(linux.topology)
    await linux.shell.run("yes full | dd of=/dev/vda bs=1M count=16 iflag=fullblock conv=fsync")
    full = image.stat().st_blocks

    await linux.shell.run("/bin/blkdiscard -l 8M /dev/vda && /bin/blkdiscard -z -o 8M -l 4M /dev/vda")
    zeroes = await linux.shell.run("dd if=/dev/vda bs=1M count=12 2> /dev/null | tr -d '\\0' | wc -c")
    behind = await linux.shell.run("dd if=/dev/vda bs=1M skip=12 count=4 2> /dev/null | tr -d 'ful\\n' | wc -c")

    assert (zeroes, behind) == ("0\n", "0\n")
    assert image.stat().st_blocks <= full - 8 * MIB // 512


async def test_entropy_device_feeds_the_kernels_generator(linux: Linux) -> None:
    """The kernel's source of random numbers is ours, and gives bytes that differ."""
    current = await linux.shell.run("cat /sys/devices/virtual/misc/hw_random/rng_current")
    data = bytes.fromhex(await linux.shell.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | xxd -p"))

    assert current == "virtio_rng.0\n"
    assert len(data) == 512
    assert len(set(data)) > 100


async def test_network_card_reaches_the_host_in_the_switch(linux: Linux) -> None:
    """Echo requests of two sizes, each answered."""
    await linux.shell.run("ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up")
    small = await linux.shell.run("ping -c 3 10.0.0.254")
    large = await linux.shell.run("ping -c 3 -s 1400 10.0.0.254")

    assert "3 packets transmitted, 3 packets received" in small
    assert "3 packets transmitted, 3 packets received" in large


async def test_console_takes_a_login(linux: Linux) -> None:
    """A getty on the serial line, name and password typed at ``iovirt console``; the session ends with its shell."""
    await linux.shell.run("mkdir -p /etc && echo root:$(mkpasswd -m sha512 sesame):0:0:root:/:/bin/sh > /etc/passwd")
    number = linux.shell.say("getty -L 115200 ttyS0 vt100; stty -echo")

    await linux.topology.console("q").expect(r"login: $", LOGIN_S)
    await typed(linux.topology, "q", "root\r", r"Password: $", LOGIN_S)
    await typed(linux.topology, "q", "sesame\r", r"# (\x1b\[6n)?$", LOGIN_S)
    answer = await typed(linux.topology, "q", "echo user=$(id -un) on=$(tty)\r", r"^user=.* on=.*\n", LOGIN_S)
    await typed(linux.topology, "q", "exit\r", rf"^\[{number}=0\]$", LOGIN_S)

    assert "\nuser=root on=/dev/ttyS0\n" in answer


async def test_guest_sees_its_disk_grow_and_uses_the_end(linux: Linux) -> None:
    """``iovirt disk resize`` while everything runs."""
    image = disk(linux.topology)
    mib = image.stat().st_size // MIB + 8

    status = main(["disk", "resize", "disk0", f"{mib}MiB", "--file", str(linux.topology.topology.source)])
    await linux.shell.run(f"until [ $(cat /sys/block/vda/size) = {mib * MIB // 512} ]; do sleep 0.1; done")
    await linux.shell.run(f"echo the end | dd of=/dev/vda bs=1M seek={mib - 1} conv=fsync,notrunc")

    assert status == 0
    assert image.read_bytes()[-MIB:].startswith(b"the end\n")


@pytest.mark.parametrize("victim", ["disk0", "q", "hv0"])
async def test_fio_finds_what_it_wrote_while_a_process_is_killed(
    linux: Linux, victim: str, record_property: Callable[[str, object], None]
) -> None:
    """Block controller, gateway, hypervisor, again and again: the guest's requests pause, and none fails or is lost.

    The output is what the pauses were: for how long requests were not completed, and fio's longest latency.
    """
    process = linux.topology.process(victim)
    await linux.shell.run("rm -f /stop /runs /status; touch /runs")
    await linux.shell.run(f"({FIO_LOOP}) > /dev/null &")
    await linux.goes_on()

    pauses_s = [await linux.recovery_s(process) for _ in range(KILLS)]
    await linux.shell.run("touch /stop; until [ -e /status ]; do sleep 0.1; done", RECOVERY_S)
    status = await linux.shell.run("cat /status")
    errors = await linux.shell.run("dmesg | grep -ci 'i/o error' || true")
    said = (await linux.shell.run("cat /runs")).splitlines()

    runs = [line.split(";") for line in said if line.startswith("3;")]
    latency_s = max(float(run[field]) for run in runs for field in _LATENCIES_US) / 1e6
    told = f"{victim}: goes on {max(pauses_s):.2f} s after a kill at the latest, longest latency {latency_s:.2f} s"
    record_property("pauses", told)
    print(told)  # noqa: T201 - the output that -rP shows
    assert (status, errors) == ("0\n", "0\n"), said
    assert {run[_ERROR] for run in runs} == {"0"}, said
