"""What a hypervisor's status tells of devices, queue pairs and sessions."""

from __future__ import annotations

import msgspec
import pytest

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.runtime.hypervisor_status import device_status, guest_status, pair_status
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.messages import TrapKind
from tests.unit.hypervisor.support import Bench, GuestPeer, complete_bench


@pytest.fixture
def bench() -> Bench:
    """A hypervisor with both controllers and no guest yet."""
    return complete_bench()


def ask_for_a_sector(guest: GuestPeer) -> None:
    """READ SECTORS of sector 0, as ATA PIO."""
    for port, value in ((0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0x20)):
        guest.outb(port, value)


def test_devices_tell_what_flies_and_what_came(bench: Bench) -> None:
    """A read of a sector: first at the controller, then its bytes are in."""
    guest = bench.guest()
    ask_for_a_sector(guest)
    vm = bench.core.guests["alice"].vm
    asked = device_status(vm)["disk"]

    disk0 = bench.controllers["disk0"]
    disk0.complete(disk0.waiting(Opcode.READ)[0].command, data=bytes(512))

    assert asked == {
        "controller": "disk0", "requests": 1, "waiting": 0, "in_flight": 1, "bytes_in": 0, "bytes_out": 0,
    }  # fmt: skip
    assert device_status(vm)["disk"] == {**asked, "in_flight": 0, "bytes_in": 512}


def test_terminal_tells_what_was_printed(bench: Bench) -> None:
    """One receive is always parked at the controller."""
    guest = bench.guest()
    guest.outb(0x3F8, ord("A"))
    tty0 = bench.controllers["tty0"]
    tty0.complete(tty0.waiting(Opcode.CONSOLE_TRANSMIT)[0].command)

    console = device_status(bench.core.guests["alice"].vm)["console"]

    assert (console["controller"], console["bytes_in"], console["bytes_out"], console["in_flight"]) == ("tty0", 0, 1, 1)


def test_terminals_at_one_controller_share_what_waits() -> None:
    """A receive for each waits; it is counted once, with the first of them."""
    pair = QueuePair("tty0")
    plan = GuestPlan("a", "virt", 1 << 20, None, Attachment(pair, "a"), virtio_console=Attachment(pair, "a.hvc0"))
    vm = VirtualMachine(plan, 1)
    vm.drivers.flush(0)
    assert {name: row["waiting"] for name, row in device_status(vm).items()} == {"console": 2, "virtio_console": 0}


def test_guest_without_power_has_devices_that_did_nothing(bench: Bench) -> None:
    """There are no drivers of the disk yet."""
    devices = device_status(bench.core.guests["alice"].vm)
    assert {name: (row["requests"], row["bytes_in"]) for name, row in devices.items()} == {
        "disk": (0, 0),
        "console": (0, 0),
    }


def test_guest_tells_its_session(bench: Bench) -> None:
    """Messages by number, and what went wrong with them."""
    guest = bench.guest(epoch=5)
    guest.trap(TrapKind.PORT_IN, 0x3FD)
    known = bench.core.guests["alice"]

    status = guest_status(known, bench.core.acceptor.stream("alice"))

    assert (status["connected"], status["epoch"]) == (True, 5)
    assert status["messages_in"] >= 1
    assert [status[key] for key in ("duplicates", "gaps", "repeated")] == [0, 0, 0]


def test_guest_without_a_session_has_counts_of_zero(bench: Bench) -> None:
    """It has never been there."""
    status = guest_status(bench.core.guests["alice"], None)
    assert [status[key] for key in ("messages_in", "unacknowledged", "duplicates", "gaps")] == [0, 0, 0, 0]


def test_queue_pair_tells_credits_and_what_waits(bench: Bench) -> None:
    """Of each controller."""
    status = pair_status(bench.pairs["disk0"], bench.core.openers["disk0"].stream)
    assert (status["connected"], status["in_flight"], status["waiting"]) == (True, 0, 0)
    assert status["credits"] > 0


def test_statuses_are_json_values(bench: Bench) -> None:
    """They go into a file."""
    bench.guest()
    known = bench.core.guests["alice"]
    status = guest_status(known, bench.core.acceptor.stream("alice"))
    assert msgspec.json.decode(msgspec.json.encode(status)) == status
