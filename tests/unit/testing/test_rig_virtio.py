"""A rig's guest without a CPU at the driver level: RAM, doorbells, completions, interrupts."""

from __future__ import annotations

import threading

import pytest

from iovirt_dist.faults.link import Faults
from iovirt_dist.guest.vcpu import CpuCounters, Exit, ExitReason
from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.testing.rig import Rig
from iovirt_dist.testing.vcpu import COMPUTE_S
from iovirt_dist.virtio.block import BlockRequest
from iovirt_dist.virtio.memory import MemoryRangeError
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.messages import Trap, TrapKind
from iovirt_dist.wire.queue_messages import Completions, Doorbell
from tests.unit.testing.virtio_driver import DATA, SECTOR_BYTES, VirtioDisk

DISK = b"".join(bytes([sector % 251]) * SECTOR_BYTES for sector in range(512))


def rig_with_disk(faults: Faults | None = None, seed: int = 0) -> tuple[Rig, VirtioDisk]:
    """A `virt` machine whose disk is enabled."""
    rig = Rig(machine="virt", disk=DISK, level=Level.DRIVER, faults=faults, seed=seed, memory_bytes=8 << 20)
    disk = VirtioDisk(rig.guest())
    rig.settle()
    return rig, disk


def test_rig_doorbell_of_many_requests_is_one_message_each_way() -> None:
    """Thirty-two reads: one trap, one doorbell, one completion, one interrupt."""
    rig, disk = rig_with_disk()
    for number in range(32):
        disk.offer(number, BlockRequest.IN, number, SECTOR_BYTES)
    rig.messages.clear()

    disk.notify()
    rig.guest().wait_interrupt()

    kinds = [type(message.body) for message in rig.messages if "guest" in (message.sender, message.receiver)]
    assert (kinds.count(Doorbell), kinds.count(Completions), kinds.count(Trap)) == (1, 1, 0)
    assert len(disk.driver.take_used()) == 32
    assert [disk.data(number, SECTOR_BYTES) for number in range(32)] == [
        DISK[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES] for number in range(32)
    ]


def test_rig_interrupt_comes_with_the_data_and_is_acknowledged() -> None:
    """Both sides count one doorbell."""
    rig, disk = rig_with_disk()
    head = disk.offer(0, BlockRequest.IN, 7, SECTOR_BYTES)

    disk.notify()
    lines = rig.guest().wait_interrupt()
    used = disk.driver.take_used()
    pending = disk.read(Register.INTERRUPT_STATUS)
    disk.write(Register.INTERRUPT_ACK, pending)
    rig.settle()

    assert (lines, pending) == (1 << virt.SEIP, 1)
    assert used == [(head, SECTOR_BYTES + 1)]
    assert disk.status(0) == 0
    assert rig.guest().core.counts.traps[TrapKind.DOORBELL] == rig.vm().counts.traps[TrapKind.DOORBELL] == 1


def test_rig_write_reaches_the_medium() -> None:
    """Data behind the header travels with the doorbell."""
    rig, disk = rig_with_disk()
    disk.memory.write(virt.RAM_BASE + 0x4_0000, b"new!" * 256)
    disk.offer(0, BlockRequest.OUT, 3, 1024)

    disk.notify()
    rig.settle()

    assert disk.status(0) == 0
    assert rig.disk[3 * SECTOR_BYTES : 5 * SECTOR_BYTES] == b"new!" * 256


@pytest.mark.parametrize("seed", range(3))
def test_rig_requests_survive_a_network_that_loses_and_repeats(seed: int) -> None:
    """Each is used once, with its data."""
    rig, disk = rig_with_disk(Faults(delay_ns=(20_000, 200_000), loss=0.1, duplicate=0.1, reorder=0.1), seed)
    heads = []
    for number in range(24):
        heads.append(disk.offer(number, BlockRequest.IN, 2 * number, SECTOR_BYTES))
        disk.notify()
    rig.settle()

    used = [head for head, _ in disk.driver.take_used()]

    assert sorted(used) == sorted(heads)
    assert all(disk.data(n, SECTOR_BYTES) == DISK[2 * n * 512 : (2 * n + 1) * 512] for n in range(24))


def test_rig_memory_is_where_the_machine_has_it() -> None:
    """From 80000000h on `virt`, from 0 on `pc`, as large as the rig says."""
    virt_memory = Rig(machine="virt", disk=None, memory_bytes=1 << 20).guest().memory
    pc_memory = Rig(disk=None, memory_bytes=1 << 20).guest().memory

    virt_memory.write(virt.RAM_BASE + (1 << 20) - 1, b"x")
    pc_memory.write((1 << 20) - 1, b"x")

    with pytest.raises(MemoryRangeError):
        virt_memory.read(virt.RAM_BASE - 1, 1)
    with pytest.raises(MemoryRangeError):
        pc_memory.read(1 << 20, 1)


class PollingCpu:
    """A CPU whose program reads a sector and looks at the used ring again and again, without a trap.

    Args:
        rig: Its guest has the memory already.
    """

    def __init__(self, rig: Rig) -> None:
        self.memory = rig.guest().memory
        self.looks = 0
        self.used: list[tuple[int, int]] = []
        self._rig = rig
        self._kicked = threading.Event()
        self._disk: VirtioDisk | None = None

    def run(self) -> Exit:
        """Notify the first time; then compute until somebody kicks, and look."""
        if self._disk is None:
            self._disk = VirtioDisk(self._rig.guest())
            self._disk.offer(0, BlockRequest.IN, 9, SECTOR_BYTES)
            self._disk.notify()
        self._kicked.wait()
        self._kicked.clear()
        self.looks += 1
        self.used += self._disk.driver.take_used()
        return Exit(ExitReason.KICKED)

    def kick(self) -> None:
        """Look up."""
        self._kicked.set()

    def reset(self) -> None:
        """Nothing runs yet."""

    def read_memory(self, address: int, length: int) -> bytes:
        """RAM."""
        return self.memory.read(address, length)

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """RAM."""
        self.memory.write(address, data)

    def counters(self) -> CpuCounters:
        """None."""
        return CpuCounters(0, 0, 0)


def test_rig_cpu_that_polls_the_used_ring_is_given_time() -> None:
    """Firmware does so: the time of a look, not of a long computation, passes between two of them."""
    rig = Rig(machine="virt", disk=DISK, level=Level.DRIVER, memory_bytes=8 << 20)
    cpu = PollingCpu(rig)
    rig.attach_cpu(lambda bus: cpu)
    begin_ns = rig.now_ns()

    rig.run_cpus(lambda: bool(cpu.used))

    assert rig.now_ns() - begin_ns < int(COMPUTE_S * 1e9)
    assert rig.guest().memory.read(DATA, SECTOR_BYTES) == DISK[9 * SECTOR_BYTES : 10 * SECTOR_BYTES]
