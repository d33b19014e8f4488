"""The hypervisor core when a guest's machine is reset, switched off or stopped."""

from __future__ import annotations

from iovirt_dist.wire.messages import GuestState, Interrupt, Power, PowerAction, TrapKind
from tests.unit.hypervisor.support import MS, SECOND, complete_bench, report, trap
from tests.unit.hypervisor.test_core import serve, unmask


def test_reset_by_the_keyboard_controller_tells_the_guest_and_renews_the_machine() -> None:
    """Pulse of output bit 0 (command FEh): the trap that did it gets no reply, as the CPU starts over."""
    bench = complete_bench()
    guest = bench.guest()
    guest.outb(0x3FF, 0x5A)

    answer = guest.outb(0x64, 0xFE)

    assert answer is None
    assert guest.bodies(Power) == [Power(PowerAction.RESET, "keyboard controller")]
    assert guest.inb(0x3FF) == 0


def test_store_that_left_before_a_reset_and_came_late_is_none_to_the_new_machine() -> None:
    """It was lost on the way and is repeated when the guest has acknowledged the reset already."""
    bench = complete_bench()
    guest = bench.guest()
    guest.inb(0x3FF)
    pulse = guest.opener.send(trap(TrapKind.PORT_OUT, 0x64, 1, 0xFE, number=8), (), bench.now_ns)
    guest.opener.send(trap(TrapKind.PORT_OUT, 0x3FF, 1, 0x5A, number=9), (), bench.now_ns)

    bench.from_guest(guest, pulse.frames)
    bench.pass_time(5 * SECOND)

    stream = bench.core.acceptor.stream("alice")
    assert stream is not None
    assert stream.last_in == 3
    guest.number = 9
    assert guest.inb(0x3FF) == 0


def test_reset_while_the_disk_has_vanished_waits_for_it() -> None:
    """The old machine does not live on under a guest that was reset."""
    bench = complete_bench()
    guest = bench.guest()
    guest.outb(0x3FF, 0x5A)
    bench.controller("disk0", {}, epoch=2)
    guest.outb(0x64, 0xFE)

    while_gone = guest.trap(TrapKind.PORT_IN, 0x3FF)
    bench.controller("disk0", epoch=3)
    answer = guest.reply(guest.number)

    assert while_gone is None
    assert answer is not None
    assert answer.value == 0


def test_power_off_ends_the_machine_and_its_timers_and_still_takes_the_last_report() -> None:
    """Traps of a machine that is off get no answer; its counts stay."""
    bench = complete_bench(machine="virt")
    guest = bench.guest()
    guest.trap(TrapKind.MMIO_STORE, 0x0200_4000, 8, 20_000_000)  # mtimecmp: two seconds
    guest.trap(TrapKind.MMIO_STORE, 0x0010_0000, 4, 0x5555)

    guest.send(report(GuestState.STOPPED))
    bench.pass_time(3 * SECOND)

    vm = bench.core.guests["alice"].vm
    assert guest.bodies(Power) == [Power(PowerAction.POWER_OFF, "test device")]
    assert vm.machine is None
    assert vm.counts.reported == report(GuestState.STOPPED)
    assert guest.trap(TrapKind.MMIO_LOAD, 0x1000_0005) is None
    assert guest.bodies(Interrupt) == []
    assert bench.core.guests["alice"].waiting == ""


def test_timers_of_a_stopped_guest_rest() -> None:
    """Nobody is there to be interrupted; a deadline that never moves would wake the process for nothing."""
    bench = complete_bench()
    guest = bench.guest()
    unmask(guest, 1)
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0)):
        guest.outb(port, value)
    serve(guest)
    bench.pass_time(100 * MS)
    running = guest.bodies(Interrupt)
    serve(guest)
    guest.send(report(GuestState.STOPPED))

    bench.pass_time(SECOND)

    assert len(running) == 1
    assert guest.bodies(Interrupt) == running
