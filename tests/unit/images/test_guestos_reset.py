"""The bundled guest OS when its virtio disk asks for a reset: in virtual time, on the real machine model."""

from __future__ import annotations

import hashlib
import random

from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.images import guestos_path
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.pc import virtio_words
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.testing.rig import Rig

DISK = random.Random(5).randbytes(256 << 10)
SHA256 = hashlib.sha256(DISK).hexdigest()
JOB = " ".join(["run=job,job kib=256 bs=4096 result=none", *virtio_words([VirtioSlot.DISK])])


def test_guestos_resets_a_disk_that_needs_it_and_goes_on() -> None:
    """DEVICE_NEEDS_RESET (VIRTIO 1.2, section 2.1.2): what is under way is EIO, the next program has its disk."""
    rig = Rig(disk=DISK, level=Level.DRIVER)
    rig.boot(guestos_path(), JOB)
    rig.run_cpus(lambda: rig.device.pairs.counts.commands > 10)
    machine = rig.vm().machine
    assert machine is not None
    disk = machine.devices["virtio-blk"]
    assert isinstance(disk, VirtioMmio)

    disk.needs_reset("on purpose")
    rig.run_cpus(lambda: b"init: all done\r\n" in rig.console.output)

    assert rig.console.output.decode().splitlines()[2:] == [
        "vda: disk needs a reset; reset",
        "job: cannot read /dev/vda: error 5",
        "init: job exited with status 1",
        f"job: read 256 KiB in 64 requests, sha256 {SHA256}",
        f"job: result sha256={SHA256} bytes_read=262144 bytes_written=0 reads=64 writes=0 calls=66",
        "job: done",
        "init: all done",
    ]


def test_guestos_with_a_timeout_gives_up_on_a_disk_that_does_not_answer() -> None:
    """Option timeout=: a controller that is gone for longer is EIO for each program, and a reset each time."""
    rig = Rig(disk=DISK, level=Level.DRIVER)
    rig.boot(guestos_path(), f"timeout=2 {JOB}")
    rig.run_cpus(lambda: rig.device.pairs.counts.commands > 10)

    rig.kill("block")
    rig.run_cpus(lambda: b"init: all done\r\n" in rig.console.output)

    assert rig.console.output.decode().count("vda: disk timed out; reset") == 2
    assert rig.console.output.decode().count("job: cannot read /dev/vda: error 5") == 2
