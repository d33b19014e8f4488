"""Limits and shares in the hypervisor core: the timer wakes what a limit holds back."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor import events as hv
from iovirt_dist.platform.qos import Qos
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.messages import TrapKind
from tests.unit.hypervisor.support import MS, SECOND, Bench, GuestPeer, complete_bench

LIMITED = Qos(iops=10, burst_ns=100 * MS)


def read_sector(guest: GuestPeer) -> None:
    """READ SECTORS of sector 0, as ATA PIO."""
    for port, value in ((0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, 0x20)):
        guest.outb(port, value)


def finish_read(bench: Bench, guest: GuestPeer) -> None:
    """Let the controller answer, and take the sector out of the data port."""
    disk = bench.controllers["disk0"]
    (read,) = disk.waiting(Opcode.READ)
    disk.complete(read.command, data=bytes(512))
    for _ in range(256):
        guest.trap(TrapKind.PORT_IN, 0x1F0, 2)


def reads(bench: Bench) -> int:
    """How many lie with the controller."""
    return len(bench.controllers["disk0"].waiting(Opcode.READ))


@pytest.fixture
def bench() -> Bench:
    """A guest whose disk has ten operations a second."""
    bench = complete_bench()
    bench.handle(hv.QosChanged("alice", "disk", LIMITED))
    return bench


def test_limit_holds_a_request_back_until_the_timer(bench: Bench) -> None:
    """The second one goes when its token is there, though nothing else happens."""
    guest = bench.guest()
    read_sector(guest)
    first = reads(bench)
    finish_read(bench, guest)

    read_sector(guest)
    held = reads(bench)
    due_ns = bench.core.deadline_ns()
    bench.pass_time(101 * MS)

    assert (first, held, reads(bench)) == (1, 0, 1)
    assert due_ns is not None
    assert due_ns - bench.now_ns <= 101 * MS


def test_limit_that_is_lifted_lets_the_request_go_in_the_same_step(bench: Bench) -> None:
    """And says so in the log."""
    guest = bench.guest()
    read_sector(guest)
    finish_read(bench, guest)
    read_sector(guest)
    held = reads(bench)

    bench.handle(hv.QosChanged("alice", "disk", Qos()))

    assert (held, reads(bench)) == (0, 1)
    assert any("guest alice: disk has" in line for line in bench.log)


def test_time_without_credit_does_not_spin_the_timer(bench: Bench) -> None:
    """What a limit would let go and the controller cannot take waits for the controller."""
    guest = bench.guest()
    read_sector(guest)
    finish_read(bench, guest)
    read_sector(guest)
    bench.pairs["disk0"].lost()

    bench.now_ns += SECOND
    bench.handle(hv.TimerFired())
    due_ns = bench.core.deadline_ns()

    assert due_ns is None or due_ns > bench.now_ns


@pytest.mark.parametrize(("guest", "device"), [("nobody", "disk"), ("alice", "rng"), ("alice", "console")])
def test_unknown_device_is_a_line_in_the_log(bench: Bench, guest: str, device: str) -> None:
    """A file that somebody wrote by hand does no harm."""
    bench.handle(hv.QosChanged(guest, device, Qos()))

    assert bench.log[-1] == f"guest {guest}: no device '{device}' to set anything for"
