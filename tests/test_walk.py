"""Read this first: one OUT and one IN, all the way round.

A guest reads one sector of its disk, as every PC driver does: it writes the task file of its ATA disk, the command
last, halts, and is woken by IRQ 14; then it moves the sector with ``rep insw``. What follows one instruction is a walk
through our rooms. The tests list its stops in order; each stop is the function that does it, so the list is the map of
the source, and it is true: `Walk` records the calls as they happen.

The whole ring runs in this process (`iovirt_dist.testing.rig`), with the cores, codecs and sessions of the real
processes and a real x86 machine program; only sockets and clock are simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.controllers.base import QueuePairs
from iovirt_dist.controllers.block.core import BlockController
from iovirt_dist.controllers.block.runner import BlockRunner
from iovirt_dist.controllers.front import ControllerFront
from iovirt_dist.drivers.disk import DiskDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import DeviceQueue
from iovirt_dist.guest.core import GuestCore
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.delivery import deliver
from iovirt_dist.guest.x86.io_privilege import io_privilege
from iovirt_dist.hypervisor import privilege
from iovirt_dist.hypervisor.address_map import AddressMap
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.intercept import operation
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.ata_device import AtaDevice
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259, Pic8259Pair
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.mux.flow import Flow
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.testing.rig import Rig
from iovirt_dist.testing.storage import MemoryStorage
from iovirt_dist.testing.walk import Visit, Walk
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.messages import Complete, Interrupt, Submit, Trap, TrapKind, TrapReply
from iovirt_dist.wire.opener import Opener

SECTOR = 5
DISK = bytes(number % 251 for number in range(64 * 512))

# A real mode program at 7C00h. Assembly in AT&T notation, as `objdump -b binary -m i386 -M addr16,data16` shows it.
PROGRAM = bytes.fromhex(
    "fa 31c0 8ed8 8ec0 8ed0 bc0070"  # cli; ds = es = ss = 0; mov $0x7000,%sp
    "c706d8015c7c c706da010000"  # interrupt vector 76h = 0000:7C5C
    "b011 e620 e6a0"  # 8259: ICW1, both chips
    "b008 e621 b070 e6a1"  # ICW2: vectors from 08h and 70h
    "b004 e621 b002 e6a1"  # ICW3: the second chip is at input 2
    "b001 e621 e6a1"  # ICW4: 8086 mode
    "b0fb e621 b0bf e6a1"  # masks: only the cascade and IRQ 14
    "baf601 b0e0 ee"  # Device: LBA, device 0
    "baf201 b001 ee 42 b005 ee 42 b000 ee 42 ee"  # Sector Count 1; LBA 5
    "baf701 b020 fb ee"  # READ SECTORS; sti; out %al,(%dx)   <- the OUT of this walk
    "f4 ebfd"  # wait: hlt; jmp wait
    # 7C5C, the interrupt service routine:
    "baf701 ec"  # in (%dx),%al: reading Status takes INTRQ back
    "bf0080 b90001 baf001 fc f36d"  # rep insw (%dx),%es:(%di): 256 words to 8000h   <- the IN of this walk
    "b020 e6a0 e620 cf"  # end of interrupt, both chips; iret
)
BUFFER = 0x8000

# fmt: off
WAY_OUT: list[Callable[..., Any]] = [
    # In the guest process. OUT is privileged: the CPU cannot complete it and asks.
    UnicornX86._on_out,          # 1  the emulated CPU executes OUT 1F7h, 20h and calls its I/O hook
    io_privilege,                # 2  facts for the decision: CPL, IOPL and the TSS permission bitmap
    RigGuest.port_out,           # 3  the bus: the vCPU waits here, inside the instruction (GuestChannel.port_out)
    GuestCore.handle,            # 4  the trap gets a number, its causal id from here on
    Opener.send,                 # 5  session: a sequence number, a copy kept until it is acknowledged
    # - - - the message Trap crosses the link - - -
    # In the hypervisor process.
    Hypervisor.handle,           # 6  bytes came from a guest's socket
    Acceptor.receive,            # 7  strict decoder; the next message in order, once
    VirtualMachine.trap,         # 8  the guest's rooms:
    privilege.refusal,           # 9    privilege: CPL <= IOPL, so emulate and not #GP
    operation.perform,           # 10   interception at the operation level: one OUT, no meaning yet
    AddressMap.find,             # 11   address map: port 1F7h belongs to "ata"
    AtaChannel.write,            # 12   the virtual device: offset 7 written is the Command register
    AtaDevice.command,           # 13   READ SECTORS: now port values have become a disk request
    DiskDriver.submit,           # 14   host-side driver: request id (guest, queue, sequence), bytes instead of sectors
    DeviceQueue.submit,          # 15   the disk's queue at the controller that has the extent; numbers its requests
    Flow.push,                   # 16   mux: the guest's own queue; waits for its turn and for credit
    Acceptor.send,               # 17 TrapReply: OUT completes before the disk does, and Status says BSY meanwhile
    QueuePair.take_batch,        # 18 end of the step: all that devices asked for is one batch
    Opener.send,                 # 19 Submit goes to the controller, and leaves before the reply does
    # - - - the message Submit crosses the link - - -
    # In the controller process. It knows extents and bytes; it knows no guests.
    ControllerFront.handle,      # 20 bytes came from a hypervisor's socket
    Acceptor.receive,            # 21 the same decoder and session
    BlockController.handle,      # 22 the device core
    QueuePairs.submit,           # 23 submission queue; a request id that is known would be answered from memory
    QueuePairs.take,             # 24 arbitration: round robin between the queue pairs
    BlockRunner.perform,         # 25 the only I/O
    MemoryStorage.read_at,       # 26 the medium (a file in the real process)
    QueuePairs.complete_reads,   # 27 completion queue
    Acceptor.send,               # 28 Complete carries the data, and is the controller's interrupt
    # - - - the message Complete crosses the link - - -
    # Back in the hypervisor process.
    Hypervisor.handle,           # 29
    Opener.receive,              # 30
    QueuePair.complete,          # 31 in flight no more; the driver hears of it
    AtaChannel.complete,         # 32 the virtual disk has its sector: DRQ set, INTRQ raised
    Pic8259.set_input,           # 33 IRQ 14: input 6 of the second 8259 rises,
    Pic8259.set_input,           # 34 which raises input 2 of the first one
    InterruptLines.set,          # 35 INTR of the CPU rises: a count that never falls
    Acceptor.send,               # 36 Interrupt has no reply to ride on: it goes alone
    # - - - the message Interrupt crosses the link - - -
    # Back in the guest process. The CPU is in HLT.
    GuestCore.handle,            # 37 the count is odd and new: the line is asserted
    RigGuest.lines,              # 38 the CPU looks at its INTR pin
    RigGuest.acknowledge_interrupt,  # 39 INTA cycle: which vector? Only the 8259 in the hypervisor knows
    # - - - Trap and TrapReply cross the link - - -
    Pic8259Pair.acknowledge,     # 40 vector 76h; the request goes into service
    deliver,                     # 41 through the guest's interrupt vector table into its service routine
]

WAY_IN: list[Callable[..., Any]] = [
    UnicornX86._on_in,           # 1  the CPU executes rep insw and calls its hook for the first word
    io_privilege,                # 2
    RigGuest.port_in,            # 3  256 words are one trap with a count
    GuestCore.handle,            # 4
    Opener.send,                 # 5
    # - - - Trap crosses the link - - -
    Hypervisor.handle,           # 6
    Acceptor.receive,            # 7
    VirtualMachine.trap,         # 8
    privilege.refusal,           # 9
    operation.perform,           # 10
    AddressMap.find,             # 11 port 1F0h
    AtaChannel.read_string,      # 12 the data port gives the whole DRQ block; no controller is asked any more
    AtaDevice.take,              # 13
    Acceptor.send,               # 14 TrapReply with a payload frame of 512 bytes
    # - - - TrapReply crosses the link - - -
    GuestCore.handle,            # 15
    UnicornX86.write_memory,     # 16 the words are in the guest's RAM, and rep insw is over
]
# fmt: on


class Journey:
    """The program run to its end on a rig, with every stop recorded."""

    def __init__(self, image: Path) -> None:
        self.rig = Rig(disk=DISK)
        self.cpu = self.rig.boot(image, image_format="flat")
        self.walk = Walk([*WAY_OUT, *WAY_IN])
        with self.walk:
            self.rig.run_cpus(lambda: self.rig.vm().counts.traps[TrapKind.INTERRUPT_ACKNOWLEDGE] == 1)
            self.rig.run_cpus(lambda: self.cpu.cpu.read_memory(BUFFER + 510, 2) != b"\0\0")

    def from_trap(self, kind: TrapKind, port: int) -> int:
        """Return the place in the visits where the CPU executed an I/O instruction on this port."""
        hook = "_on_out" if kind is TrapKind.PORT_OUT else "_on_in"
        return next(
            at
            for at, visit in enumerate(self.walk.visits)
            if visit.stop.endswith(hook) and visit.arguments["port"] == port
        )

    def stops(self, kind: TrapKind, port: int, expected: list[Callable[..., Any]]) -> list[Visit]:
        """Return one visit for each expected stop, in order, from an I/O instruction on."""
        return self.walk.in_order(expected, self.from_trap(kind, port))


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """Run the program once."""
    image = tmp_path_factory.mktemp("walk") / "read-one-sector.bin"
    image.write_bytes(PROGRAM)
    return Journey(image)


def test_walk_out_visits_every_room_to_the_medium_and_back_as_an_interrupt(journey: Journey) -> None:
    """OUT of READ SECTORS reaches the storage and comes back as vector 76h, through these functions in this order."""
    stops = journey.stops(TrapKind.PORT_OUT, 0x1F7, WAY_OUT)

    assert [visit.stop for visit in stops] == [stop.__qualname__ for stop in WAY_OUT]


def test_walk_out_carries_what_each_room_knows(journey: Journey) -> None:
    """A port and a value become a command, a request, an extent's bytes: each room knows what it must, no more."""
    stops = journey.stops(TrapKind.PORT_OUT, 0x1F7, WAY_OUT)
    known = {visit.stop: visit.arguments for visit in stops}

    assert (known["UnicornX86._on_out"]["port"], known["UnicornX86._on_out"]["value"]) == (0x1F7, 0x20)
    assert (known["AtaChannel.write"]["offset"], known["AtaChannel.write"]["value"]) == (7, 0x20)
    assert known["AtaDevice.command"]["code"] == 0x20
    request = known["DiskDriver.submit"]["request"]
    assert (request.opcode, request.offset, request.length) == (Opcode.READ, SECTOR * 512, 512)
    assert (known["MemoryStorage.read_at"]["offset"], known["MemoryStorage.read_at"]["length"]) == (SECTOR * 512, 512)
    assert [visit.arguments["irq"] for visit in stops if visit.stop == "Pic8259.set_input"] == [6, 2]
    assert known["deliver"]["event"].vector == 0x76
    sent = [type(visit.arguments["body"]) for visit in stops if visit.stop in ("Opener.send", "Acceptor.send")]
    assert sent == [Trap, TrapReply, Submit, Complete, Interrupt]


def test_walk_out_crosses_four_links_with_these_messages(journey: Journey) -> None:
    """One OUT is five messages between three processes, and the INTA cycle two more."""
    numbered = journey.rig.messages.select(Trap, TrapReply, Submit, Complete, Interrupt, taken=True)
    start = next(at for at, crossing in enumerate(numbered) if _is_out_of_command(crossing.body))
    disk = [crossing for crossing in numbered[start:] if "console" not in (crossing.sender, crossing.receiver)][:7]

    assert [(type(crossing.body).__name__, crossing.sender, crossing.receiver) for crossing in disk] == [
        ("Trap", "guest", "hypervisor"),
        ("Submit", "hypervisor", "block"),
        ("TrapReply", "hypervisor", "guest"),
        ("Complete", "block", "hypervisor"),
        ("Interrupt", "hypervisor", "guest"),
        ("Trap", "guest", "hypervisor"),
        ("TrapReply", "hypervisor", "guest"),
    ]
    assert disk[1].commands[0].id == disk[3].completions[0].id
    assert disk[3].payload == (DISK[SECTOR * 512 : (SECTOR + 1) * 512],)
    assert disk[6].body == TrapReply(_trap_number(disk[5].body), 0x76, lines=(0, 2))


def test_walk_in_brings_the_sector_in_one_trap(journey: Journey) -> None:
    """``rep insw`` is answered by the hypervisor alone and puts the disk's bytes into the guest's RAM."""
    stops = journey.stops(TrapKind.PORT_IN, 0x1F0, WAY_IN)
    reads = [m for m in journey.rig.messages.select(Trap) if m.body and _address(m.body) == 0x1F0]

    assert [visit.stop for visit in stops] == [stop.__qualname__ for stop in WAY_IN]
    assert stops[11].arguments["count"] == 256
    assert len(reads) == 1
    assert journey.cpu.cpu.read_memory(BUFFER, 512) == DISK[SECTOR * 512 : (SECTOR + 1) * 512]


def _address(body: object) -> int:
    assert isinstance(body, Trap)
    return body.address


def _trap_number(body: object) -> int:
    assert isinstance(body, Trap)
    assert body.kind is TrapKind.INTERRUPT_ACKNOWLEDGE
    return body.number


def _is_out_of_command(body: object) -> bool:
    return isinstance(body, Trap) and (body.kind, body.address) == (TrapKind.PORT_OUT, 0x1F7)
