"""User-Mode Linux, an unmodified kernel as a guest: a file system on its disk, a network with another, consoles."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.linux_vm import BOOT_S, Shell, tables, vm
from tests.guests.support import DEBUGFS, E2FSCK, MKE2FS, needs, needs_vmm

pytestmark = [*needs(MKE2FS, E2FSCK, DEBUGFS), needs_vmm("uml"), pytest.mark.timeout(600)]

MEMORY = "96MiB"


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def test_ext4_written_by_a_guest_is_whole_inside_and_on_the_host(
    iovirt: TopologyFactory, uml_initrd: Path, tmp_path: Path
) -> None:
    """Made, filled, unmounted and checked by the guest's kernel; then exported, checked and read by the host."""
    disk = {"kind": "block", "image": "disk0.img", "size": "48MiB"}
    topology = await iovirt.up(tables({"a": vm("uml", uml_initrd, {"disk": "disk0"}, memory=MEMORY)}, disk0=disk))
    shell = Shell(topology, "a")
    await shell.ready()

    await shell.run("/bin/mke2fs -q -t ext4 -F /dev/vda && mount -t ext4 /dev/vda /mnt && mkdir /mnt/tree")
    await shell.run("cp -a /lib /init /bin/busybox /mnt/tree && head -c 5000077 /dev/urandom > /mnt/tree/random")
    listed = await shell.run("cd /mnt/tree && find . -type f | xargs sha256sum && cd / && umount /mnt")
    checked = await shell.run("/bin/e2fsck -fn /dev/vda")
    shell.say("poweroff -f")
    await topology.vmm().wait_state("stopped", BOOT_S)
    topology.controller("disk0").terminate()
    await topology.controller("disk0").exited()
    exported = main(["disk", "export", "disk0/all", str(tmp_path / "a.img"), "--file", str(topology.topology.source)])
    fsck = subprocess.run([E2FSCK, "-fn", tmp_path / "a.img"], capture_output=True, text=True, check=False)
    (tmp_path / "out").mkdir()
    dump = [str(DEBUGFS), "-R", f"rdump /tree {tmp_path / 'out'}", str(tmp_path / "a.img")]
    subprocess.run(dump, check=True, capture_output=True)

    inside = {name.removeprefix("./"): digest for digest, name in map(str.split, listed.splitlines())}
    assert (exported, fsck.returncode) == (0, 0)
    assert fsck.stdout.splitlines()[-1].partition(":")[2] == checked.splitlines()[-1].partition(":")[2]
    assert len(inside) > 10
    assert sums_of(tmp_path / "out" / "tree") == inside


async def two_on_a_switch(iovirt: TopologyFactory, initrd: Path) -> tuple[LiveTopology, Shell, Shell]:
    """Start two guests with addresses 10.0.0.1 and 10.0.0.2; the first one has a virtio console, the other a disk."""
    disk = {"kind": "block", "image": "disk0.img", "size": "1MiB", "read_only": True}
    guests = {
        "a": vm("uml", initrd, {"net": "net0", "virtio_console": "tty0"}, memory=MEMORY),
        "b": vm("uml", initrd, {"net": "net0", "disk": "disk0"}, memory=MEMORY),
    }
    topology = iovirt.prepare(tables(guests, net0={"kind": "net"}, disk0=disk))
    (topology.run_dir.path / "disk0.img").write_bytes(b"to read".ljust(1 << 20, b"."))
    await topology.start()
    shells = Shell(topology, "a"), Shell(topology, "b")
    for number, shell in enumerate(shells, 1):
        await shell.ready()
        await shell.run(f"ip addr add 10.0.0.{number}/24 dev eth0 && ip link set eth0 up")
    return topology, *shells


async def test_two_guests_ping_and_copy_a_file_over_a_switch(iovirt: TopologyFactory, uml_initrd: Path) -> None:
    """Static addresses, echo requests both ways, a file by HTTP."""
    _, a, b = await two_on_a_switch(iovirt, uml_initrd)

    from_a = await a.run("ping -c 5 10.0.0.2")
    from_b = await b.run("ping -c 5 -s 1400 10.0.0.1")
    there = await a.run(
        "mkdir /www && head -c 3000077 /dev/urandom > /www/file && sha256sum < /www/file; httpd -h /www"
    )
    here = await b.run("wget -q -O - http://10.0.0.1/file | sha256sum")

    assert "5 packets transmitted, 5 packets received" in from_a
    assert "5 packets transmitted, 5 packets received" in from_b
    assert here == there


async def test_virtio_console_and_read_only_disk_of_guests(iovirt: TopologyFactory, uml_initrd: Path) -> None:
    """The second terminal shows what its guest prints and takes what is typed; writes to the disk fail."""
    topology, a, b = await two_on_a_switch(iovirt, uml_initrd)
    second = topology.console("a.hvc0")

    await a.run("echo said on hvc0 > /dev/hvc0; (read -r word < /dev/hvc0; echo got $word > /dev/hvc0) &")
    await second.expect(r"^said on hvc0$")
    second.send_line("typed")
    await second.expect(r"^got typed$")
    read_only, begin = await b.run("cat /sys/block/vda/ro"), await b.run("head -c 7 /dev/vda")
    status, _ = await b.status("dd if=/dev/zero of=/dev/vda count=1 conv=fsync")

    assert (read_only, begin) == ("1\n", "to read")
    assert status != 0
    assert (topology.run_dir.path / "disk0.img").read_bytes().startswith(b"to read...")


async def test_kill_of_the_switch_pauses_the_ping(iovirt: TopologyFactory, uml_initrd: Path) -> None:
    """Two guests ping each other; they go on when it is back, without being touched."""
    topology, a, b = await two_on_a_switch(iovirt, uml_initrd)
    answers = "grep -c 'bytes from' /log"
    await a.run("ping 10.0.0.2 > /log &")
    await b.run("ping 10.0.0.1 > /log &")

    async def answered(shell: Shell, more_than: int) -> int:
        """Wait for answers; returns how many there are."""
        return int(await shell.run(f"until [ $({answers}) -gt {more_than} ]; do sleep 0.1; done; {answers}"))

    await answered(a, 1)
    await answered(b, 1)
    topology.controller("net0").kill()
    await topology.hypervisor().wait_log("controller net0 lost")
    before = [int((await shell.status(answers))[1]) for shell in (a, b)]
    await topology.controller("net0").restart()

    assert await answered(a, before[0] + 2) > before[0]
    assert await answered(b, before[1] + 2) > before[1]
