"""One guest's machine, drivers and counts."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.network import RECEIVES
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.plan import Attachment, Card, GuestPlan
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.platform.virt import VIRTIO_BASE, VIRTIO_STRIDE
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import MAX_FRAME_BYTES, Opcode, UnitIdentity
from iovirt_dist.wire.messages import (
    MAX_TRAP_ELEMENTS,
    GuestState,
    Power,
    PowerAction,
    Trap,
    TrapKind,
    TrapReply,
)
from tests.unit.drivers.support import Controller
from tests.unit.hypervisor.support import DISK, SECOND, TERMINAL, report, trap

IN, OUT = TrapKind.PORT_IN, TrapKind.PORT_OUT
CARD_STATUS = VIRTIO_BASE + VirtioSlot.NETWORK * VIRTIO_STRIDE + Register.CONFIG + 6


class Bench:
    """A guest's machine with a disk and a console."""

    def __init__(self, machine: str = "pc", disk: UnitIdentity = DISK) -> None:
        self.disk0, self.tty0 = QueuePair("disk0"), QueuePair("tty0")
        self.disk = Controller(self.disk0, {"root": disk})
        self.tty = Controller(self.tty0, {"alice": TERMINAL})
        plan = GuestPlan("alice", machine, 32 << 20, Attachment(self.disk0, "root"), Attachment(self.tty0, "alice"))
        self.vm = VirtualMachine(plan, 1)

    def on(self) -> VirtualMachine:
        """Identify everything and power on."""
        self.vm.drivers.waiting_for()
        self.disk.open()
        self.tty.open()
        assert self.vm.drivers.waiting_for() == ""
        self.vm.power_on(5, SECOND, SECOND)
        return self.vm


def test_vm_waits_for_its_units_one_after_the_other() -> None:
    """And says for whom."""
    bench = Bench()

    first = bench.vm.drivers.waiting_for()
    bench.disk.open()
    second = bench.vm.drivers.waiting_for()
    bench.tty.open()

    assert (first, second) == ("waiting for controller disk0", "waiting for controller tty0")
    assert bench.vm.drivers.waiting_for() == ""


def test_vm_without_devices_waits_for_nobody() -> None:
    """A guest needs neither disk nor console; its UART is not connected then, and takes everything."""
    vm = VirtualMachine(GuestPlan("alice", "pc", 32 << 20, None, None), 1)
    waiting = vm.drivers.waiting_for()
    vm.power_on(1, 0, 0)

    reply, _ = vm.trap(trap(OUT, 0x3F8, 1, 65), (), 0)
    ready, _ = vm.trap(trap(IN, 0x3FD), (), 0)

    assert waiting == ""
    assert reply == TrapReply(1, 0)
    assert ready is not None
    assert ready.value == 0x60


def test_vm_with_a_disk_that_its_machine_cannot_have_says_so() -> None:
    """There is no half a machine afterwards."""
    bench = Bench(disk=UnitIdentity(1 << 20, 4096, False, "BIG"))

    with pytest.raises(ConfigError, match="4096"):
        bench.on()

    assert bench.vm.machine is None


def test_vm_that_is_refused_counts_and_does_not_touch_the_device() -> None:
    """#GP in the guest; its UART has not seen the byte."""
    vm = Bench().on()

    reply, data = vm.trap(Trap(3, OUT, 0x3F8, 1, 1, 65, 3), (), SECOND)

    assert (reply, data) == (TrapReply(3, 0, 13, 0), b"")
    assert (vm.counts.refused, vm.counts.touched, vm.counts.bytes_out) == (1, {}, 0)


@pytest.mark.parametrize(
    ("malformed", "payload"),
    [
        (trap(IN, 0x3F8, 255, count=MAX_TRAP_ELEMENTS), ()),
        (trap(OUT, 0x3F8, 1), (b"x",)),
        (trap(OUT, 0x3F8, 1, count=2), (b"x", b"y")),
        (trap(TrapKind.MMIO_LOAD, 0, 8, count=2), ()),
    ],
)
def test_vm_that_gets_a_malformed_trap_counts_it_and_answers_with_nothing(
    malformed: Trap, payload: tuple[bytes, ...]
) -> None:
    """An answer, as somebody may wait for it; but not one that is larger than the question."""
    vm = Bench().on()

    reply, data = vm.trap(malformed, payload, SECOND)

    assert (reply, data) == (TrapReply(1, 0), b"")
    assert vm.counts.malformed == 1


def test_vm_counts_traps_bytes_and_devices() -> None:
    """By kind, by direction, by name."""
    vm = Bench().on()

    vm.trap(trap(IN, 0x3FD), (), SECOND)
    vm.trap(trap(OUT, 0x3F8, 1, count=4), (b"abcd",), SECOND)
    vm.trap(trap(IN, 0x9000, 4), (), SECOND)
    vm.trap(trap(TrapKind.INTERRUPT_ACKNOWLEDGE, 0), (), SECOND)

    counts = vm.counts
    assert (counts.traps[IN], counts.traps[OUT], counts.traps[TrapKind.INTERRUPT_ACKNOWLEDGE]) == (2, 1, 1)
    assert counts.touched == {"uart": 2, "-": 1}
    assert (counts.bytes_in, counts.bytes_out) == (5, 4)


def test_vm_without_an_interrupt_controller_for_it_acknowledges_vector_0() -> None:
    """The `virt` machine has no INTA cycle; a guest process may ask nevertheless."""
    vm = Bench("virt").on()

    assert vm.trap(trap(TrapKind.INTERRUPT_ACKNOWLEDGE, 0), (), SECOND) == (TrapReply(1, 0), b"")


def test_vm_posted_store_has_no_reply() -> None:
    """Loads have."""
    vm = Bench("virt").on()

    assert vm.trap(trap(TrapKind.MMIO_STORE, 0x1000_0007, 1, 0x5A), (), SECOND) == (None, b"")
    assert vm.trap(trap(TrapKind.MMIO_LOAD, 0x1000_0007, 1), (), SECOND) == (TrapReply(1, 0x5A), b"")


def test_vm_keeps_what_its_hardware_asked_of_its_power() -> None:
    """Somebody else carries it out."""
    vm = Bench().on()

    vm.trap(trap(OUT, 0x64, 1, 0xFE), (), SECOND)

    assert vm.power == Power(PowerAction.RESET, "keyboard controller")


def test_vm_powered_off_forgets_requests_and_keeps_its_counts() -> None:
    """A read under way completes into nothing."""
    bench = Bench()
    vm = bench.on()
    for port, value in ((0x1F2, 1), (0x1F6, 0xE0), (0x1F7, 0x20)):
        vm.trap(trap(OUT, port, 1, value), (), SECOND)
    bench.disk.take()

    vm.power_off()
    bench.disk.complete(bench.disk.commands[0], data=bytes(512))

    assert vm.machine is None
    assert vm.counts.traps[OUT] == 3
    assert vm.drivers.disk is not None
    assert vm.drivers.disk.bytes_read == 0


def test_vm_interrupts_are_counted_over_resets_and_from_0_in_a_new_life() -> None:
    """The lines are new with each machine; the count is the guest's."""
    vm = Bench("virt").on()
    msip = trap(TrapKind.MMIO_STORE, 0x0200_0000, 4, 1)
    vm.trap(msip, (), SECOND)
    vm.power_on(6, SECOND, SECOND)
    vm.trap(msip, (), SECOND)
    both = vm.interrupts_raised

    vm.power_off()
    off = vm.interrupts_raised
    vm.forget_counts()

    assert (both, off, vm.interrupts_raised) == (2, 2, 0)


def test_vm_report_is_kept_with_our_counts_of_that_moment() -> None:
    """Later traps do not change what was compared."""
    vm = Bench().on()
    vm.trap(trap(IN, 0x3FD), (), SECOND)

    vm.reported(report(GuestState.RUNNING, port_in=1))
    vm.trap(trap(IN, 0x3FD), (), SECOND)

    assert vm.counts.reported == report(GuestState.RUNNING, port_in=1)
    assert vm.counts.at_report == (0, 1, 0, 0, 0, 0, 0, 0)


def test_vm_time_begins_at_power_on() -> None:
    """The register mtime reads 0 then, and a compare value is due that much later by the host's clock."""
    vm = Bench("virt").on()

    reply, _ = vm.trap(trap(TrapKind.MMIO_LOAD, 0x0200_BFF8, 8), (), SECOND + 1000)
    vm.trap(trap(TrapKind.MMIO_STORE, 0x0200_4000, 8, 10_000), (), SECOND)

    assert reply is not None
    assert reply.value == 10
    assert vm.deadline_ns() == SECOND + 1_000_000


class NetworkBench:
    """A `virt` machine with a network card that is plugged into a switch."""

    def __init__(self) -> None:
        self.pair = QueuePair("sw0")
        self.switch = Controller(self.pair, {"alice": UnitIdentity(MAX_FRAME_BYTES, 1, False, "alice")}, credits=64)
        card = Card(Attachment(self.pair, "alice"), bytes((2, 0, 0, 0, 0, 1)), 1500)
        self.vm = VirtualMachine(GuestPlan("alice", "virt", 32 << 20, None, None, net=card), 1)
        self.waited = self.vm.drivers.waiting_for()
        self.switch.open()
        self.vm.power_on(5, SECOND, SECOND)

    def link(self) -> int:
        """What the card says of its link (VIRTIO 1.2, section 5.1.4)."""
        reply, _ = self.vm.trap(trap(TrapKind.MMIO_LOAD, CARD_STATUS, 2), (), SECOND)
        assert reply is not None
        return reply.value

    def parked(self) -> int:
        """Receives that the switch has."""
        self.switch.take()
        return sum(command.opcode is Opcode.NET_RECEIVE for command in self.switch.commands)


def test_vm_network_card_waits_for_its_port_and_has_a_link_then() -> None:
    """Receives are parked before the driver asks for anything."""
    bench = NetworkBench()

    assert bench.waited == "waiting for controller sw0"
    assert bench.link() == 1
    assert bench.parked() == RECEIVES


def test_vm_network_link_follows_the_switch() -> None:
    """Down while it is out of reach, up when it is back."""
    bench = NetworkBench()

    bench.pair.lost()
    bench.vm.drivers.flush(SECOND)
    down = bench.link()
    bench.switch.commands.clear()
    bench.switch.open()
    bench.vm.drivers.flush(SECOND)

    assert (down, bench.link()) == (0, 1)


def test_vm_that_is_rebuilt_uses_the_receives_that_are_parked() -> None:
    """Otherwise those of a machine that is gone would swallow the frames of the new one."""
    bench = NetworkBench()
    before = bench.parked()

    bench.vm.power_off()
    bench.vm.power_on(6, 2 * SECOND, 2 * SECOND)

    assert (before, bench.parked()) == (RECEIVES, RECEIVES)
    assert bench.link() == 1
