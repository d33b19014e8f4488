"""Reading a disk word by word: the whole ring, with the data port read ahead."""

from __future__ import annotations

import random

import pytest

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.testing.guest import USER, RigGuest
from iovirt_dist.testing.rig import Rig
from iovirt_dist.wire.messages import PrefetchRead, Report, Trap, TrapKind
from tests.unit.testing.ata_driver import READ_SECTORS, AtaDriver

DISK = random.Random(20261122).randbytes(16 * 512)
DATA, ALTERNATE_STATUS = 0x1F0, 0x3F6
DRQ = 0x08


@pytest.fixture
def rig() -> Rig:
    """A guest with a disk."""
    return Rig(disk=DISK)


def ready(rig: Rig, sectors: int = 1) -> RigGuest:
    """A guest whose disk offers the first word of sector 0."""
    guest = rig.guest()
    AtaDriver(guest).command(READ_SECTORS, 0, sectors)
    guest.wait_interrupt()
    return guest


def words(guest: RigGuest, count: int) -> bytes:
    """Read words one by one."""
    return b"".join(guest.inw(DATA).to_bytes(2, "little") for _ in range(count))


def asked(rig: Rig) -> int:
    """INs of the data port that crossed the link."""
    traps = [crossing.body for crossing in rig.messages.select(Trap)]
    return sum(isinstance(trap, Trap) and trap.address == DATA for trap in traps)


def test_words_of_sectors_are_right_and_cost_a_round_trip_each(rig: Rig) -> None:
    """The first word brings all but the last; the last moves the disk on and brings most of the next sector."""
    guest = ready(rig, sectors=3)

    data = words(guest, 3 * 256)

    assert data == DISK[: 3 * 512]
    assert asked(rig) == 1 + 3


def test_without_prefetch_every_word_crosses_the_link() -> None:
    """The setting of a guest that shall not be helped: each IN is a message of its own."""
    rig = Rig(disk=DISK, prefetch=False)
    guest = ready(rig)

    assert words(guest, 256) == DISK[:512]
    assert asked(rig) == 256


def test_every_word_is_a_trap_on_both_sides(rig: Rig) -> None:
    """At each report, whatever of a sector has been read, both counts are the same."""
    guest = ready(rig)
    words(guest, 100)
    rig.run_for(600_000_000)

    counts = rig.vm().counts
    assert counts.reported is not None
    assert counts.reported.traps[TrapKind.PORT_IN] >= 100
    assert counts.at_report == counts.reported.traps
    assert counts.bytes_in == counts.reported.bytes_in
    assert rig.messages.select(Report)


def test_other_trap_in_the_middle_finds_the_disk_where_the_guest_is(rig: Rig) -> None:
    """The count of what was read comes before it, and reading goes on behind it."""
    guest = ready(rig)
    first = words(guest, 255)
    before = guest.inb(ALTERNATE_STATUS) & DRQ
    last = words(guest, 1)
    after = guest.inb(ALTERNATE_STATUS) & DRQ

    assert first + last == DISK[:512]
    assert (before, after) == (DRQ, 0)


def test_string_input_in_the_middle_goes_on_where_the_guest_is(rig: Rig) -> None:
    """Words and strings may be mixed."""
    guest = ready(rig)
    assert words(guest, 7) + guest.insw(DATA, 249) == DISK[:512]


def test_user_process_gets_nothing_that_was_sent_ahead(rig: Rig) -> None:
    """An IN with other privilege is asked, and refused."""
    guest = ready(rig)
    words(guest, 3)

    with pytest.raises(GuestFault):
        guest.inw(DATA, USER)

    assert words(guest, 253) == DISK[6:512]


def test_guest_that_claims_more_than_it_was_given_is_counted(rig: Rig) -> None:
    """The disk moves as far as was offered, and no further."""
    guest = ready(rig)
    words(guest, 1)
    vm = rig.vm()
    before = vm.counts.touched["ata"]

    for elements in (65536, 1):
        vm.prefetch_read(PrefetchRead(elements), rig.clock.now_ns)

    assert vm.counts.malformed == 2
    assert vm.counts.touched["ata"] == before + 254
    assert guest.inb(ALTERNATE_STATUS) & DRQ
    assert words(guest, 1) == DISK[510:512]


def test_reset_of_the_machine_takes_the_data_away(rig: Rig) -> None:
    """A new machine's disk has nothing to read: its data port gives all ones."""
    guest = ready(rig)
    words(guest, 1)

    with pytest.raises(BusClosedError):
        guest.outb(0x64, 0xFE)
    guest.take_power_on()

    assert words(guest, 2) == b"\xff" * 4
