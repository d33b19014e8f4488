"""What a trap costs: answered by the hypervisor, and all the way to a controller and back.

The guest's side is a real channel without a CPU behind it, hypervisor and block controller are real processes. Bare
sides: an echo between two processes, a relay between three.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from iovirt_dist.bench.bare import BareClient
from iovirt_dist.bench.probe import ProbeGuest
from iovirt_dist.bench.processes import Processes
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Effort, in_turns
from iovirt_dist.errors import LocalError
from iovirt_dist.guest.bus import Bus, IoPrivilege
from iovirt_dist.runtime.guest_channel import GuestChannel

TOPOLOGY = """
[topology]
name = "bench-traps"
run_dir = "run"
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = "1MiB"
[guest.probe]
kind = "machine"
hypervisor = "hv0"
image = "bundled:guestos"
devices.disk = "disk0"
"""
DISK_BYTES = 1 << 20
INTERRUPT_WITHIN_S = 5.0

_KERNEL = IoPrivilege(0)
_POST = 0x80
_MASTER, _SLAVE = 0x20, 0xA0
_ATA_SECTOR_COUNT, _ATA_DEVICE, _ATA_COMMAND = 0x1F2, 0x1F6, 0x1F7
_READ_SECTORS = 0x20
_LBA_DEVICE_0 = 0xE0
_IRQ14_VECTOR = 0x2E

# 8259A data sheet, "Initialization Command Words" and "Operation Control Words": cascade on IRQ2, vectors 20h and 28h,
# 8086 mode; then everything masked but IRQ2 and IRQ14.
_START_PIC = (
    (_MASTER, 0x11),
    (_MASTER + 1, 0x20),
    (_MASTER + 1, 0x04),
    (_MASTER + 1, 0x01),
    (_SLAVE, 0x11),
    (_SLAVE + 1, 0x28),
    (_SLAVE + 1, 0x02),
    (_SLAVE + 1, 0x01),
    (_MASTER + 1, 0xFB),
    (_SLAVE + 1, 0xBF),
)
_END_OF_INTERRUPT = 0x20


def measure_traps(effort: Effort, tell: Callable[[str], None]) -> list[Result]:
    """Measure both kinds of traps in one topology.

    Args:
        effort: For each of them.
        tell: Gets a line of progress.

    Raises:
        LocalError: A process does not do what it should.
    """
    tell("traps: starting hypervisor, block controller and the bare processes")
    with Processes(TOPOLOGY) as ring:
        (ring.folder / "disk.img").write_bytes(os.urandom(DISK_BYTES))
        ring.start("disk0", "hv0")
        ring.start_bare("echo", "echo", ring.endpoint("echo"))
        ring.start_bare("relay", "relay", ring.endpoint("relay"), ring.endpoint("echo3"))
        ring.start_bare("echo3", "echo", ring.endpoint("echo3"))
        echo, relay = BareClient(ring.endpoint("echo")), BareClient(ring.endpoint("relay"))
        try:
            with ProbeGuest(ring.topology, "probe") as channel:
                return [_hypervisor_trap(channel, echo, effort, tell), _controller_trap(channel, relay, effort, tell)]
        finally:
            echo.close()
            relay.close()


def _hypervisor_trap(channel: Bus, echo: BareClient, effort: Effort, tell: Callable[[str], None]) -> Result:
    """IN from the POST port, which keeps nobody busy."""
    tell("traps: a trap that the hypervisor answers")
    ours, base = in_turns(lambda: _post_read_us(channel), echo.round_trip_us, effort)
    title = "trap to the hypervisor : echo"
    return Result("hypervisor_trap", title, "us", Target(1.25), ours, base, "echo")


def _post_read_us(channel: Bus) -> float:
    started_ns = time.perf_counter_ns()
    channel.port_in(_POST, 1, 1, _KERNEL)
    return (time.perf_counter_ns() - started_ns) / 1000


def _controller_trap(channel: GuestChannel, relay: BareClient, effort: Effort, tell: Callable[[str], None]) -> Result:
    """READ SECTORS of one sector, from the command's OUT to the rising line."""
    tell("traps: a trap that reaches the block controller, until its interrupt")
    for port, value in _START_PIC:
        _out(channel, port, value)
    ours, base = in_turns(lambda: _read_sector_us(channel), relay.round_trip_us, effort)
    title = "trap to a controller : relay"
    return Result("controller_trap", title, "us", Target(1.25), ours, base, "relay")


def _read_sector_us(channel: GuestChannel) -> float:
    """Read a sector; only the way from the command to the interrupt is timed."""
    for register, value in enumerate((1, 0, 0, 0), _ATA_SECTOR_COUNT):
        _out(channel, register, value)
    _out(channel, _ATA_DEVICE, _LBA_DEVICE_0)
    deadline = time.monotonic() + INTERRUPT_WITHIN_S
    started_ns = time.perf_counter_ns()
    _out(channel, _ATA_COMMAND, _READ_SECTORS)
    channel.pump_until(lambda: bool(channel.lines()) or time.monotonic() > deadline)
    taken_us = (time.perf_counter_ns() - started_ns) / 1000
    if not channel.lines() or channel.acknowledge_interrupt() != _IRQ14_VECTOR:
        raise LocalError("the disk did not raise IRQ 14 after READ SECTORS")
    channel.port_in(_ATA_COMMAND, 1, 1, _KERNEL)
    channel.port_in(0x1F0, 2, 256, _KERNEL)
    _out(channel, _SLAVE, _END_OF_INTERRUPT)
    _out(channel, _MASTER, _END_OF_INTERRUPT)
    return taken_us


def _out(channel: Bus, port: int, value: int) -> None:
    channel.port_out(port, 1, bytes((value,)), _KERNEL)
