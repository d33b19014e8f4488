"""The bundled OS with its programs' INT 80h taken by the hypervisor, before its kernel sees them."""

from __future__ import annotations

import hashlib

import pytest

from iovirt_dist.guest.bus import Bus, IoPrivilege
from iovirt_dist.guest.loader.image import pc_target
from iovirt_dist.guest.loader.path import load_path
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.vcpu import X86Cpu
from iovirt_dist.hypervisor.intercept.syscall_parts import Mode
from iovirt_dist.images import guestos_path
from iovirt_dist.testing.rig import Rig
from tests.guests.emulated_linux import EmulatedLinux
from tests.guests.support import KIB, MIB, pattern

RAM_BYTES = 32 * MIB
TRUTH = pattern(256 * KIB)
OTHER = pattern(256 * KIB, seed=1)


class CallsAside(EmulatedLinux):
    """Carries out system calls on a disk of its own; everything else goes to the machine's bus.

    Args:
        machine: The bus of the machine.
    """

    def __init__(self, machine: Bus) -> None:
        super().__init__("linux_i386", TRUTH, mode=Mode.MACHINE)
        self._machine = machine

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """The machine's."""
        return self._machine.port_in(port, width, count, privilege)

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """The machine's."""
        self._machine.port_out(port, width, data, privilege)

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """The machine's."""
        return self._machine.load(address, width, privilege)

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """The machine's."""
        self._machine.store(address, width, value, privilege)

    def acknowledge_interrupt(self) -> int:
        """The machine's."""
        return self._machine.acknowledge_interrupt()

    def lines(self) -> int:
        """The machine's."""
        return self._machine.lines()


def run_job(options: str) -> tuple[str, CallsAside]:
    """Boot a machine whose own disk is another one than that of the system calls, and run the job."""
    rig = Rig(disk=OTHER)
    aside: list[CallsAside] = []

    def make(bus: Bus) -> X86Cpu:
        aside.append(CallsAside(bus))
        image = load_path(guestos_path(), pc_target(RAM_BYTES), command_line=f"run=job {options}")
        return X86Cpu(UnicornX86, aside[0], image, RAM_BYTES)

    rig.attach_cpu(make)
    rig.run_cpus(lambda: b"init: all done" in rig.console.output)
    return rig.console.output.decode(), aside[0]


def test_job_reads_the_hypervisors_disk_and_not_the_machines() -> None:
    """The checksum is that of the disk behind the calls; the kernel prints, as it always does."""
    output, linux = run_job("kib=256 bs=65536 result=none")
    assert f"sha256={hashlib.sha256(TRUTH).hexdigest()} bytes_read=262144" in output
    assert [entry[1:] for entry in linux.known] == [("/dev/vda", n * 65536, 65536, "read") for n in range(4)]
    assert linux.linux.passed["write"] > 0
    assert linux.linux.unknown == {}


@pytest.mark.parametrize("block_bytes", [512, 5120, 1 << 18])
def test_job_writes_back_and_stores_its_result(block_bytes: int) -> None:
    """Rewritten blocks change nothing, the result block is what the job says."""
    output, linux = run_job(f"kib=192 bs={block_bytes} write=50 result=200")
    content = bytes(linux.disk.content)
    assert "job: done" in output
    assert content[: 200 * KIB] == TRUTH[: 200 * KIB]
    assert hashlib.sha256(TRUTH[: 192 * KIB]).hexdigest().encode() in content[200 * KIB : 200 * KIB + 512]
    assert content[200 * KIB + 512 :] == TRUTH[200 * KIB + 512 :]
