"""Real machine code on a rig: the bundled guest OS boots in one process and in virtual time."""

from __future__ import annotations

import hashlib
import random

from iovirt_dist.faults.link import Faults
from iovirt_dist.images import guestos_path
from iovirt_dist.testing.rig import Rig
from iovirt_dist.wire.messages import GuestState

DISK = random.Random(7).randbytes(1 << 20)
JOB = "run=job kib=32 result=512"
CHECKSUM = hashlib.sha256(DISK[: 32 << 10]).hexdigest()


def _printed(rig: Rig, text: str) -> bool:
    return text.encode() in rig.console.output


def test_rig_guestos_reads_its_disk_and_stores_the_result() -> None:
    """The job's checksum is the disk's, its result block is on stable storage, both sides counted the same traps."""
    rig = Rig(disk=DISK)
    rig.boot(guestos_path(), JOB)

    rig.run_cpus(lambda: _printed(rig, "init: all done"))
    rig.run_for(1_000_000_000)

    assert _printed(rig, f"sha256 {CHECKSUM}")
    assert CHECKSUM.encode() in rig.storage.stable[512 << 10 : (512 << 10) + 512]
    assert tuple(rig.guest().core.counts.traps) == tuple(rig.vm().counts.traps)


def test_rig_guestos_survives_a_bad_network_and_a_block_restart() -> None:
    """Loss, duplicates, reordering, and a crash in the middle of the job are nothing but time for the guest."""
    rig = Rig(disk=DISK, faults=Faults(delay_ns=(10_000, 100_000), loss=0.02, duplicate=0.02, reorder=0.1), seed=3)
    rig.boot(guestos_path(), JOB + " bs=4096")
    rig.run_cpus(lambda: rig.device.pairs.counts.commands > 3)

    rig.restart("block")
    rig.run_cpus(lambda: _printed(rig, "init: all done"))

    assert _printed(rig, f"sha256 {CHECKSUM}")


def test_rig_guestos_boots_again_after_a_hypervisor_restart() -> None:
    """The machine is new, so the kernel prints its first line twice."""
    rig = Rig(disk=DISK)
    rig.boot(guestos_path(), "run=echo")
    rig.run_cpus(lambda: _printed(rig, "type lines"))

    rig.restart("hypervisor")
    rig.run_cpus(lambda: rig.console.output.count(b"type lines") == 2)

    assert rig.console.output.count(b"guestos: 32768 KiB memory") == 2


def test_rig_guestos_echoes_what_is_typed() -> None:
    """Input wakes a halted CPU through the UART's interrupt."""
    rig = Rig(disk=DISK)
    rig.boot(guestos_path(), "run=echo")
    rig.run_cpus(lambda: _printed(rig, "type lines"))

    rig.console.type(b"hello\r")
    rig.run_cpus(lambda: _printed(rig, "echo: hello\r\n"))

    assert rig.console.output.endswith(b"hello\r\necho: hello\r\n")


def test_rig_two_cpus_take_turns_and_one_triple_fault_leaves_the_other_alone() -> None:
    """Alice stops with a reason; bob works."""
    rig = Rig(disk=DISK, guests=("alice", "bob"))
    alice = rig.boot(guestos_path(), "panic=triple", guest="alice")
    bob = rig.boot(guestos_path(), "run=echo", guest="bob")

    rig.run_cpus(lambda: b"type lines" in rig.terminal("bob").output and alice.state is GuestState.STOPPED)

    assert alice.reason.startswith("triple fault at ")
    assert bob.state is not GuestState.STOPPED
