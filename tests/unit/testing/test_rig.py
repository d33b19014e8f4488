"""The whole ring in one process: traps, disk, console, faults and crashes in virtual time."""

from __future__ import annotations

import random

import pytest

from iovirt_dist.errors import ConfigError, GuestFault, LocalError
from iovirt_dist.faults.link import Faults
from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.testing.guest import USER
from iovirt_dist.testing.rig import Rig
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.messages import Complete, Report, Submit, Trap
from tests.unit.testing.ata_driver import READ_SECTORS, WRITE_SECTORS, AtaDriver

DISK = random.Random(20261122).randbytes(64 * 512)
BAD_NETWORK = Faults(delay_ns=(10_000, 400_000), loss=0.1, duplicate=0.1, reorder=0.2)
SECOND_NS = 1_000_000_000


# --- what works


def test_rig_disk_read_through_ports_returns_the_disk() -> None:
    """Sixteen sectors by READ SECTORS, interrupts and rep insw."""
    rig = Rig(disk=DISK)

    data = AtaDriver(rig.guest()).read(3, 16)

    assert data == DISK[3 * 512 : 19 * 512]


def test_rig_disk_write_through_ports_is_on_stable_storage() -> None:
    """The last interrupt of WRITE SECTORS says that the data would survive a power cut."""
    rig = Rig(disk=DISK)
    data = bytes(range(256)) * 4

    AtaDriver(rig.guest()).write(9, data)

    assert rig.storage.stable == DISK[: 9 * 512] + data + DISK[11 * 512 :]


def test_rig_console_shows_what_the_guest_prints_and_takes_what_is_typed() -> None:
    """Bytes go through the UART to the terminal and back."""
    rig = Rig(disk=None)
    guest = rig.guest()
    rig.console.type(b"?")

    for byte in b"hello":
        guest.outb(0x3F8, byte)
    rig.settle()

    assert rig.console.output == b"hello"
    assert (guest.inb(0x3FD) & 1, guest.inb(0x3F8)) == (1, ord("?"))


def test_rig_user_mode_port_access_faults_and_reaches_no_device() -> None:
    """Ring 3 without I/O permission gets #GP; the disk never sees the command."""
    rig = Rig(disk=DISK)

    with pytest.raises(GuestFault) as fault:
        rig.guest().outb(0x1F7, 0x30, USER)

    assert fault.value.vector == 13
    assert rig.vm().counts.touched == {}
    assert rig.vm().counts.refused == 1


def test_rig_two_guests_have_disks_of_their_own() -> None:
    """One controller, one medium, two extents: neither guest sees the other's sectors."""
    rig = Rig(disk=DISK, guests=("alice", "bob"))

    AtaDriver(rig.guest("alice")).write(0, b"A" * 512)
    AtaDriver(rig.guest("bob")).write(0, b"B" * 512)

    assert rig.disk_of("alice") == b"A" * 512 + DISK[512:]
    assert rig.disk_of("bob") == b"B" * 512 + DISK[512:]


def test_rig_trap_counts_of_both_sides_are_equal_at_every_report() -> None:
    """No I/O instruction of the guest bypasses the hypervisor (C10)."""
    rig = Rig(disk=DISK, faults=BAD_NETWORK, seed=4)
    driver = AtaDriver(rig.guest())
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    for _ in range(4):
        driver.read(0, 2)
        rig.run_for(2 * SECOND_NS)
        report = rig.vm().counts.reported
        assert report is not None
        pairs.append((report.traps, rig.vm().counts.at_report))

    assert [guest for guest, _ in pairs] == [hypervisor for _, hypervisor in pairs]
    assert pairs[-1][0] == tuple(rig.guest().core.counts.traps)
    assert len(rig.messages.select(Report, taken=True)) >= 4


# --- faults


@pytest.mark.parametrize("seed", range(4))
def test_rig_disk_survives_loss_duplicates_reordering_and_delay(seed: int) -> None:
    """What the guest wrote and read is what the disk holds, whatever the network does."""
    rig = Rig(disk=DISK, faults=BAD_NETWORK, seed=seed)
    driver = AtaDriver(rig.guest())
    data = random.Random(seed).randbytes(3 * 512)

    driver.write(20, data)

    assert driver.read(19, 5) == DISK[19 * 512 : 20 * 512] + data + DISK[23 * 512 : 24 * 512]
    assert rig.network.lost > 0
    assert [entry.kind for entry in rig.storage.log] == ["write", "sync"]


def test_rig_run_equals_the_next_with_the_same_seed_and_differs_with_another() -> None:
    """Every message, at the same virtual time."""

    def run(seed: int) -> str:
        rig = Rig(disk=DISK, faults=BAD_NETWORK, seed=seed)
        AtaDriver(rig.guest()).read(0, 2)
        return str(rig.messages)

    assert run(1) == run(1)
    assert run(1) != run(2)


# --- crashes


def test_rig_block_restart_in_the_middle_of_a_read_is_a_pause_for_the_guest() -> None:
    """The request is submitted again under its id to the new life, and the guest gets its data."""
    rig = Rig(disk=DISK, storage_ns=20_000_000)
    guest = rig.guest()
    driver = AtaDriver(guest)
    rig.messages.clear()
    driver.command(READ_SECTORS, 7, 1)
    rig.run_until(lambda: rig.device.pairs.counts.commands == 2, what="READ at the controller")

    rig.restart("block")
    data = driver.read_block()

    submitted = [command for m in rig.messages.select(Submit, receiver="block", taken=True) for command in m.commands]
    reads = [command.id for command in submitted if command.opcode is Opcode.READ]
    assert data == DISK[7 * 512 : 8 * 512]
    assert len(reads) == 2
    assert reads[0] == reads[1]
    assert rig.hypervisor.config.controllers["block"].resubmitted == 1


def test_rig_block_out_of_reach_for_a_while_writes_once() -> None:
    """The link is cut while a write is at the controller; the session resumes and nothing is done twice."""
    rig = Rig(disk=DISK, storage_ns=20_000_000)
    driver = AtaDriver(rig.guest())
    driver.command(WRITE_SECTORS, 5, 1)
    rig.guest().outsw(0x1F0, b"W" * 512)
    rig.run_until(lambda: rig.device.pairs.counts.commands == 2, what="WRITE at the controller")

    rig.cut("hypervisor", "block")
    rig.run_for(10 * SECOND_NS)
    rig.heal("hypervisor", "block")
    rig.guest().wait_interrupt()
    rig.settle()

    assert rig.disk[5 * 512 : 6 * 512] == b"W" * 512
    assert [entry.kind for entry in rig.storage.log] == ["write", "sync"]
    assert any("is back" in line.text for line in rig.log if line.node == "block")


def test_rig_hypervisor_restart_powers_the_guest_on_afresh() -> None:
    """Devices live in the hypervisor: the trap that waits is void, and the new machine starts from reset."""
    rig = Rig(disk=DISK)
    guest = rig.guest()
    guest.outb(0x3FF, 0x5A)  # the UART's scratch register
    before = guest.inb(0x3FF)

    rig.restart("hypervisor")
    with pytest.raises(BusClosedError):
        guest.inb(0x3FF)
    reason = guest.wait_power_on()

    assert before == 0x5A
    assert reason == "connected to hypervisor hypervisor"
    assert guest.inb(0x3FF) == 0
    assert AtaDriver(guest).read(1, 1) == DISK[512:1024]


def test_rig_guest_restart_gets_a_machine_of_its_own() -> None:
    """The next life of a guest sees nothing of the last one's devices, and counts from nothing."""
    rig = Rig(disk=DISK)
    rig.guest().outb(0x3FF, 0x5A)

    rig.restart("guest")
    rig.power_on()

    assert rig.guest().inb(0x3FF) == 0
    assert sum(rig.vm().counts.traps) == 1


def test_rig_console_restart_loses_nothing_that_was_shown() -> None:
    """Output of both lives of the console controller is on the terminal; typing goes to the new one."""
    rig = Rig(disk=None)
    guest = rig.guest()
    guest.outb(0x3F8, ord("a"))
    rig.settle()

    rig.restart("console")
    guest.outb(0x3F8, ord("b"))
    rig.settle()
    rig.console.type(b"c")
    rig.settle()

    assert rig.console.output == b"ab"
    assert guest.inb(0x3F8) == ord("c")


def test_rig_nodes_may_start_in_any_order() -> None:
    """Guest first, controllers last: the guest waits, and its hypervisor says for whom."""
    rig = Rig(disk=DISK, start=False)
    for name in ("guest", "hypervisor", "console", "block"):
        rig.start(name)
        rig.run_for(3 * SECOND_NS)

    rig.power_on()

    notes = [line.text for line in rig.log if line.node == "hypervisor"]
    assert "guest guest: waiting for controller block" in notes
    assert AtaDriver(rig.guest()).read(0, 1) == DISK[:512]


def test_rig_stop_says_goodbye_at_once() -> None:
    """An orderly end needs no lease to be noticed."""
    rig = Rig(disk=DISK)

    rig.stop("block")
    rig.run_for(1_000_000)

    assert [line.text for line in rig.log if "lost" in line.text] == [
        "controller block lost: bye: shutting down; 0 requests wait for it"
    ]


# --- the rig itself


def test_rig_settle_says_what_is_under_way_when_it_cannot_rest() -> None:
    """A node that is down keeps its peers' requests under way."""
    rig = Rig(disk=DISK)
    driver = AtaDriver(rig.guest())
    rig.kill("block")
    driver.command(READ_SECTORS, 0, 1)

    with pytest.raises(LocalError, match=r"still no rest after 5 virtual seconds: hypervisor: .*command"):
        rig.settle(5 * SECOND_NS)


def test_rig_run_for_lets_exactly_that_time_pass() -> None:
    """Signs of life happen meanwhile; the clock stands where it was asked to."""
    rig = Rig(disk=None)
    before_ns = rig.clock.now_ns
    seen = len(rig.messages)

    rig.run_for(10 * SECOND_NS + 1)

    assert rig.clock.now_ns - before_ns == 10 * SECOND_NS + 1
    assert len(rig.messages) > seen


def test_rig_messages_show_the_way_of_one_read() -> None:
    """Trap, Submit and Complete in this order, with the command and its data."""
    rig = Rig(disk=DISK)
    driver = AtaDriver(rig.guest())
    rig.messages.clear()

    driver.read(4, 1)

    way = rig.messages.select(Trap, Submit, Complete, taken=True)
    disk = [m for m in way if "console" not in (m.sender, m.receiver) and isinstance(m.body, Submit | Complete)]
    assert [(m.sender, m.receiver) for m in disk] == [("hypervisor", "block"), ("block", "hypervisor")]
    assert disk[0].commands[0].offset == 4 * 512
    assert disk[1].payload == (DISK[4 * 512 : 5 * 512],)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"disk": 100}, "a disk of 100 bytes"),
        ({"guests": ("block",)}, "names are not unique: block"),
        ({"guests": ()}, "no guest"),
    ],
)
def test_rig_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    """A wrong experiment does not start."""
    with pytest.raises(ConfigError, match=message):
        Rig(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_rig_unknown_node_is_an_error_that_lists_the_known_ones() -> None:
    """A typing error in a test is found where it is."""
    rig = Rig(disk=None)

    with pytest.raises(LocalError, match="nodes: console, hypervisor, guest"):
        rig.kill("hypervizor")
