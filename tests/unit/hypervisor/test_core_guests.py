"""Guests that come and go while the hypervisor runs."""

from __future__ import annotations

from iovirt_dist.hypervisor.events import GuestAdded, GuestRemoved
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.session import SendFrames
from tests.unit.hypervisor.support import DISK, SECOND, Bench, complete_bench
from tests.unit.hypervisor.test_core import read_sector

READY = 0x50
"""ATA status: ready, seek complete (ATA/ATAPI-6, section 7.15)."""


def add(bench: Bench, name: str) -> None:
    """Serve one more guest, on a unit that the controllers know."""
    disk, console = Attachment(bench.pairs["disk0"], "alice"), Attachment(bench.pairs["tty0"], "alice")
    bench.handle(GuestAdded(GuestPlan(name, "pc", 32 << 20, disk, console)))


def test_guest_that_was_added_gets_its_machine_and_reads_its_disk() -> None:
    """As if it had been there from the beginning."""
    bench = complete_bench()
    add(bench, "bob")
    bob = bench.guest("bob")

    status = bob.inb(0x1F7)
    read_sector(bob)
    (read,) = bench.controllers["disk0"].waiting(Opcode.READ)
    bench.controllers["disk0"].complete(read.command, data=b"\x5a" * 512)

    assert status == READY
    assert bob.inb(0x1F7) & 0x08


def test_guest_that_is_not_there_any_more_is_refused() -> None:
    """Its messages go nowhere, and its name is unknown to a HELLO."""
    bench = complete_bench()
    alice = bench.guest()
    alice.inb(0x1F7)

    bench.handle(GuestRemoved("alice"))
    alice.outb(0x1F6, 0xE0)
    late = bench.guest(epoch=2)

    assert "alice" not in bench.core.guests
    assert alice.reply(2) is None
    assert not late.opener.open
    assert bench.core.acceptor.rejects["unknown-name"] == 1


def test_requests_of_a_guest_that_was_removed_complete_into_nothing() -> None:
    """The controller answers later; nobody else is disturbed, and the terminal's receive is not parked again."""
    bench = complete_bench(("alice", "bob"))
    alice, bob = bench.guest(), bench.guest("bob")
    read_sector(alice)
    bob.inb(0x1F7)
    (read,) = bench.controllers["disk0"].waiting(Opcode.READ)

    bench.handle(GuestRemoved("alice"))
    bench.controllers["disk0"].complete(read.command, data=bytes(512))
    for pending in bench.controllers["tty0"].waiting(Opcode.CONSOLE_RECEIVE):
        bench.controllers["tty0"].complete(pending.command, data=b"x")

    assert bench.pairs["disk0"].in_flight == 0
    assert len(bench.controllers["tty0"].waiting(Opcode.CONSOLE_RECEIVE)) == 1
    assert bob.inb(0x1F7) == READY


def test_guest_that_comes_again_under_its_name_is_another() -> None:
    """Removed and added: it connects with a new life and has a fresh machine."""
    bench = complete_bench()
    bench.guest().inb(0x1F7)
    bench.handle(GuestRemoved("alice"))

    add(bench, "alice")
    bench.pass_time(SECOND)
    again = bench.guest(epoch=2)

    assert again.inb(0x1F7) == READY


def test_thousand_guests_that_came_and_went_leave_nothing() -> None:
    """Neither instances nor shares nor flows."""
    bench = complete_bench()
    queue = bench.pairs["disk0"].queue

    for number in range(1000):
        add(bench, f"guest-{number}")
        bench.handle(GuestRemoved(f"guest-{number}"))

    assert list(bench.core.guests) == ["alice"]
    assert len(queue) == 0
    assert queue.flow("guest-999") is None
    assert bench.pairs["tty0"].in_flight == 0


def test_unit_that_the_controller_learns_of_later_is_asked_for_again() -> None:
    """A controller on another host may hear of a new guest after its hypervisor."""
    bench = complete_bench()
    disk, console = Attachment(bench.pairs["disk0"], "new"), Attachment(bench.pairs["tty0"], "alice")
    bench.handle(GuestAdded(GuestPlan("bob", "pc", 32 << 20, disk, console)))
    bob = bench.guest("bob")
    bob.outb(0x1F6, 0xE0)
    refused = bob.reply(1)
    waiting = bench.core.guests["bob"].waiting

    bench.controllers["disk0"].units["new"] = DISK
    bench.pass_time(2 * SECOND)

    assert refused is None
    assert "has no unit 'new'" in waiting
    assert bob.reply(1) is not None
    assert bench.core.guests["bob"].waiting == ""


def test_unit_that_no_guest_has_any_more_is_forgotten() -> None:
    """One that another guest still has stays; a guest that comes again has it identified anew."""
    bench = complete_bench(("alice", "bob"))
    add(bench, "carol")

    bench.handle(GuestRemoved("bob"))
    bench.handle(GuestRemoved("alice"))

    assert sorted(bench.pairs["disk0"].units) == ["alice"]
    assert sorted(bench.pairs["tty0"].units) == ["alice"]


def test_removed_guest_says_bye_or_falls_silent_and_nobody_minds() -> None:
    """Its process ends later than its name goes."""
    bench = complete_bench(("alice", "bob", "carol"))
    alice, bob, carol = bench.guest(), bench.guest("bob"), bench.guest("carol")
    carol.inb(0x1F7)
    for guest, name in ((alice, "alice"), (bob, "bob")):
        guest.inb(0x1F7)
        bench.handle(GuestRemoved(name))

    for output in alice.opener.close("ended", bench.now_ns):
        assert isinstance(output, SendFrames)
        bench.from_guest(alice, output.frames)
    del bench.guests[bob.address]
    bench.pass_time(5 * SECOND)

    assert carol.inb(0x1F7) == READY
