"""The same read at the driver and the system-call level: read `test_walk.py` first.

The program is the bundled guest OS and its `job`, which reads its disk in calls of 64 KiB; only the setting ``level``
differs. At the driver level the kernel's virtio driver fills a ring and stores to a notify register; at the
system-call level the program's INT 80h never reaches its kernel. The tests list the stops of one request in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from iovirt_dist.controllers.front import ControllerFront
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.guest.armed_queue import ArmedQueue
from iovirt_dist.guest.core import GuestCore
from iovirt_dist.guest.program.marshal import Marshaller, scatter
from iovirt_dist.guest.queues import ArmedQueues
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.delivery import deliver
from iovirt_dist.guest.x86.system_calls import SystemCalls
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.linux.decoder import CallDecoder
from iovirt_dist.hypervisor.linux.io_calls import read
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair
from iovirt_dist.hypervisor.vdev.virtio_blk import VirtioBlk
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.images import guestos_path
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.pc import virtio_words
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.testing.rig import Rig
from iovirt_dist.testing.walk import Walk
from iovirt_dist.virtio.split import SplitDevice
from iovirt_dist.wire.messages import Complete, Submit, TrapKind
from iovirt_dist.wire.queue_messages import Completions, Doorbell
from iovirt_dist.wire.syscall_messages import Disposition, SystemCall, SystemCallReply

KIB = 1024
REQUEST = 64 * KIB
DISK = bytes(number % 249 for number in range(2 * REQUEST))
JOB = f"run=job kib={len(DISK) // KIB} bs={REQUEST} result=none"

# fmt: off
DRIVER_WAY: list[Callable[..., Any]] = [
    # In the guest process, inside the store to QueueNotify.
    UnicornX86._store,            # 1  the emulated CPU executes the store of the virtio driver
    GuestCore.handle,             # 2  its address is the notify register of an armed queue: no trap leaves
    ArmedQueue.gather,            # 3  the ring is walked here, where the memory is
    SplitDevice.take,             # 4  available ring, descriptors, one copy of each
    # - - - the message Doorbell crosses the link; the CPU has gone on - - -
    Hypervisor.handle,            # 5
    VirtualMachine.message,       # 6  not an operation: interception at the driver level
    DriverInterception.message,   # 7  which device, which queue, which life of it
    VirtioBlk.requests,           # 8  the virtual device: type and sector of each request
    DiskDriver.submit,            # 9  the same host-side driver as at the operation level (submit_many for several)
    QueuePair.take_batch,         # 10 all requests of the doorbell in one batch
    # - - - Submit and Complete cross the link (stops 20 to 31 of the other walk) - - -
    ControllerFront.handle,       # 11
    QueuePair.complete,           # 12
    VirtioBlk.succeed_many,       # 13 data and status of each request
    DriverInterception.flush,     # 14 one message for all that is done, and the interrupt if the driver wanted one
    # - - - the message Completions crosses the link - - -
    GuestCore.handle,             # 15
    ArmedQueues.complete,         # 16 between two instructions of the CPU:
    ArmedQueue.complete,          # 17   data, status and used ring into guest memory, the index last
    SplitDevice.publish,          # 18   does the driver want an interrupt by now?
    RigGuest.acknowledge_interrupt,  # 19 INTR was raised along with the completions
    Pic8259Pair.acknowledge,      # 20
    deliver,                      # 21 into the kernel's interrupt service routine
]

SYSCALL_WAY: list[Callable[..., Any]] = [
    # In the guest process, at INT 80h of the program.
    SystemCalls.take,             # 1  the call is one that the hypervisor takes
    Marshaller.gather,            # 2  what it reads from memory, by the table of its ABI; its pointers, checked here
    RigGuest.system_call,         # 3  the vCPU waits
    GuestCore.handle,             # 4
    # - - - the message SystemCall crosses the link - - -
    Hypervisor.handle,            # 5
    VirtualMachine.message,       # 6
    SystemCallInterception.message,  # 7  interception at the system-call level: process, file, offset
    CallDecoder.decode,           # 8  the same table on this side: strict
    read,                         # 9  the emulated OS does what Linux would
    DiskDriver.submit,            # 10
    QueuePair.take_batch,         # 11
    # - - - Submit and Complete cross the link - - -
    ControllerFront.handle,       # 12
    QueuePair.complete,           # 13
    SystemCallInterception.complete,  # 14 the routine goes on, to its end
    SystemCallInterception.flush,  # 15
    # - - - the message SystemCallReply crosses the link - - -
    GuestCore.handle,             # 16
    scatter,                      # 17 into the program's buffer, through its page tables; the kernel was never entered
]
# fmt: on


class Journey:
    """The job run to its end on a rig at one level, with every stop recorded."""

    def __init__(self, level: Level, way: list[Callable[..., Any]]) -> None:
        self.rig = Rig(disk=DISK, level=level)
        words = virtio_words([VirtioSlot.DISK]) if level is Level.DRIVER else []
        self.rig.boot(guestos_path(), " ".join([JOB, *words]))
        self.rig.run_cpus(lambda: b"vda: " in self.rig.console.output or level is Level.SYSCALL)
        self.walk = Walk(way)
        with self.walk:
            self.rig.run_cpus(lambda: b"job: done\r\n" in self.rig.console.output)

    @property
    def sha256(self) -> str:
        """What the job printed."""
        return self.rig.console.output.decode().partition("sha256=")[2].partition(" ")[0]


@pytest.fixture(scope="module")
def at_driver() -> Journey:
    """Run the job once at the driver level."""
    return Journey(Level.DRIVER, DRIVER_WAY)


@pytest.fixture(scope="module")
def at_syscall() -> Journey:
    """Run the job once at the system-call level."""
    return Journey(Level.SYSCALL, SYSCALL_WAY)


def _first(walk: Walk, stop: Callable[..., Any]) -> int:
    return walk.first_after(stop, 0)


def _last_before(walk: Walk, stop: Callable[..., Any], position: int) -> int:
    return max(at for at, visit in enumerate(walk.visits[:position]) if visit.stop == stop.__qualname__)


def test_walk_at_the_driver_level_passes_these_stops(at_driver: Journey) -> None:
    """A store to the notify register reaches the disk and comes back as memory and an interrupt."""
    start = _first(at_driver.walk, VirtioBlk.requests)
    store = _last_before(at_driver.walk, UnicornX86._store, start)
    stops = at_driver.walk.in_order(DRIVER_WAY, store)

    assert [visit.stop for visit in stops] == [stop.__qualname__ for stop in DRIVER_WAY]
    assert at_driver.sha256 == hashlib.sha256(DISK).hexdigest()


def test_walk_at_the_driver_level_is_four_messages_a_request(at_driver: Journey) -> None:
    """No message per register, none per descriptor; what the hypervisor knows is type, sectors and where they end."""
    messages = at_driver.rig.messages.select(Doorbell, Submit, Complete, Completions, taken=True)
    disk = [crossing for crossing in messages if "console" not in (crossing.sender, crossing.receiver)][-8:]

    assert [(type(crossing.body).__name__, crossing.sender, crossing.receiver) for crossing in disk] == 2 * [
        ("Doorbell", "guest", "hypervisor"),
        ("Submit", "hypervisor", "block"),
        ("Complete", "block", "hypervisor"),
        ("Completions", "hypervisor", "guest"),
    ]
    assert [(command.offset, command.length) for command in disk[1].commands] == [(0, REQUEST)]
    assert b"".join(disk[3].payload) == DISK[:REQUEST]


def test_walk_at_the_system_call_level_passes_these_stops(at_syscall: Journey) -> None:
    """INT 80h of the program reaches the disk and comes back as its buffer; its kernel has no part in it."""
    start = _first(at_syscall.walk, read)
    taken = max(
        at for at, visit in enumerate(at_syscall.walk.visits[:start]) if visit.stop.endswith("SystemCalls.take")
    )
    stops = at_syscall.walk.in_order(SYSCALL_WAY, taken)

    assert [visit.stop for visit in stops] == [stop.__qualname__ for stop in SYSCALL_WAY]
    assert at_syscall.sha256 == hashlib.sha256(DISK).hexdigest()


def test_walk_at_the_system_call_level_needs_no_device_and_no_interrupt(at_syscall: Journey) -> None:
    """One call, one reply, and between them the same two messages to the controller."""
    messages = at_syscall.rig.messages.select(SystemCall, Submit, Complete, SystemCallReply, taken=True)
    disk = [crossing for crossing in messages if "console" not in (crossing.sender, crossing.receiver)]
    first = next(at for at, crossing in enumerate(disk) if isinstance(crossing.body, Submit) and _reads(crossing))
    request = disk[first - 1 : first + 3]

    assert [type(crossing.body) for crossing in request] == [SystemCall, Submit, Complete, SystemCallReply]
    assert request[3].body is not None
    assert isinstance(request[3].body, SystemCallReply)
    assert (request[3].body.disposition, request[3].body.result) == (Disposition.DONE, REQUEST)
    assert b"".join(request[3].payload) == DISK[:REQUEST]
    assert at_syscall.rig.vm().counts.traps[TrapKind.DOORBELL] == 0


def _reads(crossing: Any) -> bool:
    return any(command.length == REQUEST for command in crossing.commands)
