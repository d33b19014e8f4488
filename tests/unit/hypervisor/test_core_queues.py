"""The hypervisor core and armed queues: what leaves when, whatever the guest's process does meanwhile."""

from __future__ import annotations

from iovirt_dist.hypervisor.guest import COMPLETIONS_UNACKNOWLEDGED_BYTES
from iovirt_dist.hypervisor.intercept.syscall_parts import FIRST_MACHINE_FD
from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.testing.rig import MESSAGE_NS, Rig
from iovirt_dist.virtio.block import HEADER, HEADER_BYTES, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.mmio import Register, Status
from iovirt_dist.wire.commands import Opcode, UnitIdentity
from iovirt_dist.wire.messages import Message, Power, PowerAction, TrapKind
from iovirt_dist.wire.queue_messages import NEVER, ArmQueue, Completions, Doorbell, QueueInterrupt
from iovirt_dist.wire.requests import REQUEST
from iovirt_dist.wire.syscall_messages import SystemCall
from tests.unit.hypervisor.support import MS, SECOND, Bench, GuestPeer, trap
from tests.unit.testing.virtio_driver import SECTOR_BYTES, VirtioDisk


def test_interrupt_that_the_guests_process_asks_for_leaves_at_once() -> None:
    """The driver wanted none when it rang and one when its request was done: six messages later it has it."""
    rig = Rig(machine="virt", level=Level.DRIVER, memory_bytes=8 << 20)
    disk = VirtioDisk(rig.guest())
    rig.settle()
    disk.driver.disable_interrupts()
    disk.offer(0, BlockRequest.IN, 0, SECTOR_BYTES)
    disk.notify()
    began_ns = rig.now_ns()

    disk.driver.enable_interrupts()
    lines = rig.guest().wait_interrupt()

    assert [message.sender for message in rig.messages if isinstance(message.body, QueueInterrupt)] == ["guest"]
    assert lines == 1 << virt.SEIP
    assert rig.now_ns() - began_ns <= 6 * MESSAGE_NS


MIB = 1 << 20
OPEN, PREAD64 = 5, 180
"""System calls of Linux on i386."""
PLACE = 0x1000
"""Somewhere in a program's memory."""
SCRATCH = 7
"""Scratch register of a 16550."""
LIVE = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK


def store(guest: GuestPeer, register: Register, value: int) -> None:
    """Write a register of the virtio disk."""
    guest.trap(TrapKind.MMIO_STORE, virt.VIRTIO_BASE + register, 4, value)


def armed() -> tuple[Bench, GuestPeer, ArmQueue]:
    """A guest that has enabled its disk's queue."""
    bench = Bench(machine="virt", level=Level.DRIVER)
    bench.controller("disk0", {"alice": UnitIdentity(64 * MIB, 512, False, "DISK")})
    bench.controller("tty0")
    guest = bench.guest()
    for register, value in (
        (Register.DRIVER_FEATURES_SEL, 1),
        (Register.DRIVER_FEATURES, mask(Feature.VERSION_1) >> 32),
        (Register.STATUS, LIVE),
        (Register.QUEUE_READY, 1),
        (Register.STATUS, LIVE | Status.DRIVER_OK),
    ):
        store(guest, register, value)
    (arm,) = guest.bodies(ArmQueue)
    assert isinstance(arm, ArmQueue)
    return bench, guest, arm


def doorbell(arm: ArmQueue, count: int, length: int) -> Doorbell:
    """A doorbell that brings reads from the disk's start."""
    header = HEADER.pack(BlockRequest.IN, 0, 0)
    requests = b"".join(REQUEST.pack(head, 0, HEADER_BYTES, length + 1) + header for head in range(count))
    return Doorbell(arm.device, arm.queue, arm.generation, 1, NEVER, requests)


def hand_in(bench: Bench, guest: GuestPeer, *bodies: Message) -> None:
    """Let messages be on their way together: none of them left after something came."""
    sends = [guest.opener.send(body, (), bench.now_ns) for body in bodies]
    for send in sends:
        bench.from_guest(guest, send.frames)


def complete_all(bench: Bench, data: bytes) -> None:
    """Let the controller complete all reads, one in each message."""
    disk = bench.controllers["disk0"]
    while reads := disk.waiting(Opcode.READ):
        disk.complete(reads[0].command, data=data)


def test_completions_for_a_guest_that_does_not_listen_wait_and_none_is_lost() -> None:
    """What is kept for it is bounded, however large its requests; when it is back, it gets them all."""
    bench, guest, arm = armed()
    data = bytes(4 * MIB)
    del bench.guests[guest.address]
    for _ in range(2):
        guest.send(doorbell(arm, 14, len(data)))
        complete_all(bench, data)

    stream = bench.core.acceptor.stream("alice")
    kept = stream.unacknowledged_bytes() if stream else 0
    bench.guests[guest.address] = guest
    bench.pass_time(10 * SECOND)

    assert kept <= COMPLETIONS_UNACKNOWLEDGED_BYTES + len(data) + 4096
    assert sum(len(payload) for _, frames in guest.received for payload in frames) == 2 * 14 * len(data)
    assert "takes no messages" not in "".join(bench.log)


def test_completions_that_wait_go_on_with_the_acknowledgement() -> None:
    """Not with the next timer: they come in the same millisecond as those that were repeated."""
    bench, guest, arm = armed()
    data = bytes(4 * MIB)
    del bench.guests[guest.address]
    for _ in range(2):
        guest.send(doorbell(arm, 14, len(data)))
        complete_all(bench, data)
    bench.guests[guest.address] = guest

    while not guest.bodies(Completions):
        bench.pass_time(MS)

    assert sum(len(payload) for _, frames in guest.received for payload in frames) == 2 * 14 * len(data)


def test_what_left_before_the_guest_heard_of_its_reset_reaches_no_new_device() -> None:
    """It counts: the guest has counted it, too."""
    bench, guest, arm = armed()
    before = list(bench.core.guests["alice"].vm.counts.traps)

    hand_in(
        bench,
        guest,
        trap(TrapKind.MMIO_STORE, virt.TEST_BASE, 4, virt.REBOOT_VALUE),
        trap(TrapKind.MMIO_STORE, virt.UART_BASE + SCRATCH, 1, 0x5A),
        doorbell(arm, 1, SECTOR_BYTES),
    )
    answer = guest.trap(TrapKind.MMIO_LOAD, virt.UART_BASE + SCRATCH)

    counts = bench.core.guests["alice"].vm.counts
    assert guest.bodies(Power) == [Power(PowerAction.RESET, "test device")]
    assert answer is not None
    assert answer.value == 0
    assert counts.traps[TrapKind.MMIO_STORE] - before[TrapKind.MMIO_STORE] == 2
    assert counts.traps[TrapKind.DOORBELL] - before[TrapKind.DOORBELL] == 1
    assert counts.malformed == 0


def test_doorbell_of_a_machine_that_waits_for_its_disk_counts() -> None:
    """Reset while the disk has vanished: there is no machine, and what the guest raises is a trap all the same."""
    bench, guest, arm = armed()
    bench.controller("disk0", {}, epoch=2)

    hand_in(
        bench,
        guest,
        trap(TrapKind.MMIO_STORE, virt.TEST_BASE, 4, virt.REBOOT_VALUE),
        doorbell(arm, 1, SECTOR_BYTES),
    )
    guest.send(doorbell(arm, 1, SECTOR_BYTES))

    assert bench.core.guests["alice"].vm.counts.traps[TrapKind.DOORBELL] == 2


def test_replies_to_a_program_that_does_not_listen_are_bounded() -> None:
    """A guest's process that goes on calling without taking what it read is not served."""
    bench = Bench(level=Level.SYSCALL)
    bench.controller("disk0", {"alice": UnitIdentity(4 * MIB, 512, False, "DISK")})
    bench.controller("tty0")
    guest = bench.guest()
    guest.send(SystemCall(1, 1, OPEN, (PLACE, 0, 0), (8,)), b"/dev/vda")
    del bench.guests[guest.address]

    for number in range(2, 32):
        guest.send(SystemCall(number, 1, PREAD64, (FIRST_MACHINE_FD, PLACE, 4 * MIB, 0, 0), (4 * MIB,)))
        complete_all(bench, bytes(4 * MIB))

    stream = bench.core.acceptor.stream("alice")
    counts = bench.core.guests["alice"].vm.counts
    assert stream is not None
    assert stream.unacknowledged_bytes() <= COMPLETIONS_UNACKNOWLEDGED_BYTES + 4096
    assert counts.malformed == 30 - 16
    assert counts.traps[TrapKind.SYSTEM_CALL] == 31
