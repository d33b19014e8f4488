"""The hypervisor core between real session ends."""

from __future__ import annotations

from iovirt_dist.hypervisor.backlog import MAX_STORES
from iovirt_dist.hypervisor.guest_side import GUEST_WINDOW
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity
from iovirt_dist.wire.messages import GuestState, Interrupt, TrapKind
from tests.unit.hypervisor.support import DISK, INTR, MS, SECOND, Bench, GuestPeer, complete_bench, report, trap


def read_sector(guest: GuestPeer) -> None:
    """READ SECTORS of sector 0, as ATA PIO."""
    for port, value in ((0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0x20)):
        guest.outb(port, value)


def unmask(guest: GuestPeer, irqs: int) -> None:
    """Initialise the 8259 pair with vectors 20h and 28h, and unmask inputs."""
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28), (0xA1, 2)):
        guest.outb(port, value)
    for port, value in ((0xA1, 1), (0x21, ~irqs & 0xFB), (0xA1, ~irqs >> 8 & 0xFF)):
        guest.outb(port, value)


def serve(guest: GuestPeer) -> None:
    """Acknowledge an interrupt of the master 8259 and end it."""
    guest.trap(TrapKind.INTERRUPT_ACKNOWLEDGE, 0)
    guest.outb(0x20, 0x20)


def test_guest_that_comes_before_its_controllers_waits_and_goes_on() -> None:
    """Its trap is answered when the last unit is identified; what it waits for is said by name, each once."""
    bench = Bench()
    guest = bench.guest()

    first = guest.trap(TrapKind.PORT_IN, 0x3FD)
    bench.controller("disk0")
    second = guest.reply(1)
    bench.controller("tty0")
    third = guest.reply(1)

    assert (first, second) == (None, None)
    assert third is not None
    assert third.value == 0x60
    assert [line for line in bench.log if "waiting" in line] == [
        "guest alice: waiting for controller disk0",
        "guest alice: waiting for controller tty0",
    ]


def test_backlog_that_overflows_with_stores_still_answers_the_trap_that_waits() -> None:
    """A guest that posts stores without end before its machine exists is not left hanging in its next load."""
    bench = Bench(machine="virt")
    guest = bench.guest()
    for number in range(MAX_STORES + 10):
        guest.send(trap(TrapKind.MMIO_STORE, 0x5000_0000, 4, number, number=number + 1))
    guest.send(trap(TrapKind.MMIO_LOAD, 0x1000_0005, 1, number=99_999))

    bench.controller("disk0")
    bench.controller("tty0")

    answer = guest.reply(99_999)
    assert answer is not None
    assert answer.value == 0x60
    assert bench.core.guests["alice"].vm.counts.malformed == 10


def test_unit_that_the_controller_lacks_is_said_and_found_after_its_restart() -> None:
    """A problem is no dead end: the next life of the controller may have the unit."""
    bench = Bench()
    guest = bench.guest()
    bench.controller("tty0")
    bench.controller("disk0", {})
    guest.trap(TrapKind.PORT_IN, 0x3FD)
    waiting = bench.core.guests["alice"].waiting

    bench.controller("disk0", epoch=2)

    assert waiting == "controller disk0 has no unit 'alice' (unknown_unit)"
    assert f"guest alice: {waiting}" in bench.log
    assert guest.reply(1) is not None
    assert bench.core.guests["alice"].waiting == ""


def test_disk_with_blocks_that_the_machine_cannot_have_is_said_and_raises_nothing() -> None:
    """An ATA disk has sectors of 512 bytes."""
    bench = Bench()
    guest = bench.guest()
    bench.controller("tty0")

    bench.controller("disk0", {"alice": UnitIdentity(1 << 20, 4096, False, "BIG")})

    assert "4096" in bench.core.guests["alice"].waiting
    assert guest.trap(TrapKind.PORT_IN, 0x3FD) is None


def test_session_that_resumes_keeps_the_machine() -> None:
    """Silence longer than the lease costs nothing but time: registers are as they were."""
    bench = complete_bench()
    guest = bench.guest()
    guest.outb(0x3FF, 0x5A)
    del bench.guests[guest.address]
    bench.pass_time(5 * SECOND)
    bench.guests[guest.address] = guest

    bench.pass_time(5 * SECOND)

    assert "guest alice is back" in bench.log
    assert guest.inb(0x3FF) == 0x5A


def test_session_that_resumes_gets_the_machine_that_its_controllers_came_too_late_for() -> None:
    """They came while the guest was silent: nobody is left waiting for what is there."""
    bench = Bench()
    guest = bench.guest()
    guest.trap(TrapKind.PORT_IN, 0x3FD)
    del bench.guests[guest.address]
    bench.pass_time(5 * SECOND)
    bench.controller("disk0")
    bench.controller("tty0")
    bench.guests[guest.address] = guest

    bench.pass_time(5 * SECOND)

    assert "guest alice is back" in bench.log
    assert guest.reply(1) is not None


def test_timer_that_typed_input_starts_is_kept() -> None:
    """The character time-out of the 16550 (data sheet, "FIFO Interrupt Mode Operation") comes on an idle guest, too."""
    bench = complete_bench()
    guest = bench.guest()
    guest.outb(0x3FA, 0x81)  # FIFO on, trigger level 8
    guest.outb(0x3F9, 0x01)
    bench.pass_time(100 * MS)
    (receive,) = bench.controllers["tty0"].waiting(Opcode.CONSOLE_RECEIVE)

    bench.controllers["tty0"].complete(receive.command, data=b"x")

    machine_ns, core_ns = bench.core.guests["alice"].vm.deadline_ns(), bench.core.deadline_ns()
    assert machine_ns is not None
    assert core_ns is not None
    assert core_ns <= machine_ns < bench.now_ns + 10 * MS


def test_new_life_of_a_guest_gets_a_new_machine_and_new_counts() -> None:
    """The old life's registers and counts are gone."""
    bench = complete_bench()
    bench.guest().outb(0x3FF, 0x5A)

    again = bench.guest(epoch=2)

    assert again.inb(0x3FF) == 0
    assert bench.core.guests["alice"].vm.counts.traps[TrapKind.PORT_OUT] == 0


def test_interrupt_that_a_trap_causes_rides_on_its_reply() -> None:
    """Enabling the UART's transmitter interrupt raises INTR before the OUT completes."""
    bench = complete_bench()
    guest = bench.guest()
    unmask(guest, 1 << 4)

    answer = guest.outb(0x3F9, 0x02)

    assert answer is not None
    assert answer.lines == (INTR, 1)
    assert guest.bodies(Interrupt) == []


def test_interrupt_of_a_completion_goes_alone() -> None:
    """ATA read: no trap is under way when the data comes."""
    bench = complete_bench()
    guest = bench.guest()
    unmask(guest, 1 << 14)
    read_sector(guest)
    disk = bench.controllers["disk0"]

    disk.complete(disk.waiting(Opcode.READ)[0].command, data=bytes(512))

    assert guest.bodies(Interrupt) == [Interrupt(INTR, 1)]


def test_interrupt_lines_wait_for_a_guest_that_acknowledges_nothing_and_come_as_the_last_count() -> None:
    """A guest that is suspended for a while does not fill its window; the last count says it all."""
    bench = complete_bench()
    guest = bench.guest()
    unmask(guest, 1)
    del bench.guests[guest.address]
    stream = bench.core.acceptor.stream("alice")
    assert stream is not None
    for _ in range(2000):
        bench.core.guests["alice"].vm.machine.lines.set(INTR, level=True)  # type: ignore[union-attr]  # it has one
        bench.core.guests["alice"].vm.machine.lines.set(INTR, level=False)  # type: ignore[union-attr]  # it has one
        bench.now_ns += 100_000
        bench.pass_time(1)

    assert stream.unacknowledged() <= 130
    assert not [line for line in bench.log if "takes no messages" in line]


def test_guest_that_never_acknowledges_loses_replies_and_is_noted_once() -> None:
    """Its window is bounded, and so is the log."""
    bench = complete_bench()
    guest = bench.guest()
    sends = [guest.opener.send(trap(TrapKind.PORT_IN, 0x3FD, number=n + 1), (), bench.now_ns) for n in range(2000)]
    del bench.guests[guest.address]

    for send in sends:
        bench.from_guest(guest, send.frames)

    stream = bench.core.acceptor.stream("alice")
    assert stream is not None
    assert stream.unacknowledged() == GUEST_WINDOW
    assert len([line for line in bench.log if "takes no messages" in line]) == 1


def test_unknown_guest_is_refused_and_garbage_is_counted() -> None:
    """Neither ends anything for those who are known."""
    bench = complete_bench()
    guest = bench.guest()
    stranger = bench.guest("mallory")

    bench.from_guest(guest, [b"\xc1\xc1"])

    assert not stranger.opener.open
    assert sum(bench.core.acceptor.rejects.values()) >= 1
    assert bench.core.acceptor.rejects["not-msgpack"] == 1
    assert guest.inb(0x3FD) == 0x60


def test_completions_that_cannot_be_decoded_are_refused_whole() -> None:
    """The log says why; the request goes on waiting for a real one."""
    bench = complete_bench()
    guest = bench.guest()
    read_sector(guest)

    bench.controllers["disk0"].send(b"x" * 31)

    assert any(line.startswith("controller disk0: completions refused: batch-size") for line in bench.log)
    assert bench.pairs["disk0"].in_flight == 1


def test_read_of_a_disk_that_vanished_fails_in_the_guest() -> None:
    """The command under way and later ones end with ERR; the guest goes on."""
    bench = complete_bench()
    guest = bench.guest()
    read_sector(guest)

    bench.controller("disk0", {}, epoch=2)
    under_way = guest.inb(0x1F7)
    read_sector(guest)
    later = guest.inb(0x1F7)

    assert (under_way & 0x81, later & 0x81) == (0x01, 0x01)
    assert "controller disk0 has no unit 'alice' (unknown_unit); requests to it end with an error" in bench.log


def test_disk_that_shrank_is_logged() -> None:
    """The guest keeps its disk; the controller refuses what lies beyond the new end."""
    bench = complete_bench()
    bench.guest()

    bench.controller("disk0", {"alice": DISK._replace(size_bytes=512)}, epoch=2)

    assert any("unit 'alice' was" in line and "size_bytes=512" in line for line in bench.log)


def test_failing_console_is_asked_again_once_a_second() -> None:
    """Neither side spins: one receive, and after each failure one more a second later."""
    bench = complete_bench()
    guest = bench.guest()
    guest.inb(0x3FD)
    tty = bench.controllers["tty0"]

    for _ in range(3):
        tty.complete(tty.waiting(Opcode.CONSOLE_RECEIVE)[0].command, Status.MEDIUM_ERROR)
        guest.inb(0x3FD)
        assert tty.waiting(Opcode.CONSOLE_RECEIVE) == []
        bench.pass_time(990 * MS)
        assert tty.waiting(Opcode.CONSOLE_RECEIVE) == []
        bench.pass_time(20 * MS)
        assert len(tty.waiting(Opcode.CONSOLE_RECEIVE)) == 1


def test_guests_see_nothing_of_each_other() -> None:
    """One guest's registers, interrupts and requests are its own."""
    bench = complete_bench(("alice", "bob"))
    alice, bob = bench.guest("alice"), bench.guest("bob")
    unmask(alice, 1 << 14)
    unmask(bob, 1 << 14)
    alice.outb(0x3FF, 0x5A)
    read_sector(alice)
    disk = bench.controllers["disk0"]

    disk.complete(disk.waiting(Opcode.READ)[0].command, data=bytes(512))

    assert bob.inb(0x3FF) == 0
    assert bob.bodies(Interrupt) == []
    assert alice.bodies(Interrupt) == [Interrupt(INTR, 1)]


def test_report_is_kept_next_to_our_own_counts() -> None:
    """Both sides count the same traps at the same point of the channel."""
    bench = complete_bench()
    guest = bench.guest()
    guest.inb(0x3FD)
    guest.inb(0x3FD)

    guest.send(report(GuestState.RUNNING, port_in=2))
    guest.inb(0x3FD)

    counts = bench.core.guests["alice"].vm.counts
    assert counts.reported is not None
    assert counts.reported.traps[TrapKind.PORT_IN] == counts.at_report[TrapKind.PORT_IN] == 2
    assert counts.traps[TrapKind.PORT_IN] == 3
