"""Every message of the two protocols, declared once.

A message travels as one msgpack frame (the envelope, `Envelope`) followed by zero or more payload frames of raw
bytes. Payload never passes through msgpack, so a disk block is not copied to be encoded. Types and ranges below are
what the decoder enforces: a message that decodes is a message within these bounds.

Session messages carry either protocol. Guest protocol: guest and hypervisor. Controller protocol: hypervisor (or a
driver domain) and controller.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from iovirt_dist.wire.fields import U8, U16, U63, U64, Name, Text
from iovirt_dist.wire.queue_messages import (
    ArmQueue,
    Completions,
    DisarmQueue,
    Doorbell,
    QueueBroken,
    QueueInterrupt,
)
from iovirt_dist.wire.syscall_messages import InterceptCalls, ProgramStarted, SystemCall, SystemCallReply

PROTOCOL_VERSION = 1
"""Version that HELLO offers; a peer with another one is refused with both numbers named."""

MAX_TRAP_ELEMENTS = 4096
"""Most elements of one string I/O trap: the largest block of an ATA data port (16 sectors, 16 bits at a time). A device
without a data port takes them one by one, and all other guests wait."""


class Role(enum.IntEnum):
    """What kind of process speaks."""

    GUEST = 1
    HYPERVISOR = 2
    CONTROLLER = 3


class TrapKind(enum.IntEnum):
    """What the guest's CPU did."""

    PORT_IN = 1
    PORT_OUT = 2
    MMIO_LOAD = 3
    MMIO_STORE = 4
    INTERRUPT_ACKNOWLEDGE = 5
    """The CPU's INTA cycle: which vector does the interrupt controller present (8259A data sheet, "Interrupt
    Sequence")."""
    DOORBELL = 6
    """A store to the notify register of an armed queue; the message is `Doorbell`."""
    SYSTEM_CALL = 7
    """A program's system call that the hypervisor takes; the message is `SystemCall`."""


class GuestState(enum.IntEnum):
    """Life of a guest as it reports it."""

    STARTING = 1
    RUNNING = 2
    HALTED = 3
    """The CPU waits for an interrupt (HLT, WFI)."""
    STOPPED = 4
    """The CPU will not run again; the reason says why (power off, triple fault, ...)."""


class Hello(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """First message of the side that connects.

    Attributes:
        role: What the sender is.
        name: Its name in the topology.
        version: `PROTOCOL_VERSION` of the sender.
        epoch: The sender's life; greater than in every earlier life.
        peer_epoch: The life of the receiver that the sender last spoke with, 0 for none: equal to the receiver's own
            epoch, the session resumes; anything else, the receiver holds no state for the sender.
        features: What the sender can do beyond version 1, by name.
    """

    role: Role
    name: Name
    version: U16
    epoch: U63
    peer_epoch: U63 = 0
    features: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()


class Welcome(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Answer to HELLO that opens or resumes the session.

    Attributes:
        name: The answering process.
        epoch: Its life.
        resumed: Whether it still holds the sender's state; False: start afresh.
        credits: Requests that the sender may have in flight.
        lease_ms: Silence after which each side takes the other for lost.
        features: What both sides will use.
    """

    name: Name
    epoch: U63
    resumed: bool
    credits: Annotated[int, Meta(ge=1, le=65536)]
    lease_ms: Annotated[int, Meta(ge=10, le=600_000)]
    features: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()


class Refuse(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Answer to a HELLO that is not accepted, or to a message outside any session (reason ``no-session``)."""

    reason: Name
    detail: Text = ""


class Ping(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Sign of life that asks for a PONG; outside the sequence numbers.

    Attributes:
        stamp: Comes back in the PONG. 0 asks for no PONG: messages are missing after the envelope's
            ``acknowledged``, and the receiver of this PING is to send them again.
    """

    stamp: U63


class Pong(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Answer to PING with its stamp; stamp 0 only carries an acknowledgement when there is nothing else to send."""

    stamp: U63


class Bye(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """Orderly end of a session."""

    reason: Text = ""


class Trap(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """An instruction of the guest that only the hypervisor can complete.

    A load, IN, OUT or acknowledge cycle waits for its `TrapReply`; an MMIO store is posted (x86 OUT is not:
    Intel SDM volume 1, section 19.6; RISC-V stores to I/O are ordered, not completed: unprivileged ISA, FENCE).

    Attributes:
        number: The guest's count of traps, its causal id.
        kind: What the CPU did.
        address: Port number or guest physical address.
        width: Bytes of one element: 1, 2, 4 or 8.
        count: Elements; above 1 for string I/O (`rep ins`, `rep outs`).
        value: What OUT or a store writes, 0 otherwise and for string output, whose data is the payload frame.
        privilege: x86 CPL (0..3) or RISC-V privilege (0 U, 1 S, 3 M) of the instruction.
        iopl: x86 I/O privilege level, 0 on RISC-V.
        permitted: x86: the TSS I/O permission bitmap allows all ports touched; False where there is no bitmap.
    """

    number: U63
    kind: TrapKind
    address: U64
    width: U8
    count: Annotated[int, Meta(ge=1, le=MAX_TRAP_ELEMENTS)]
    value: U64
    privilege: Annotated[int, Meta(ge=0, le=3)]
    iopl: Annotated[int, Meta(ge=0, le=3)] = 0
    permitted: bool = False


class TrapReply(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=17):
    """Completion of a trap; string input comes as one payload frame of ``width * count`` bytes.

    A payload frame with the reply to a single IN holds what the next INs of the same port, width and privilege would
    read, as whole elements: see `PrefetchRead`.

    Attributes:
        number: The trap's number.
        value: What IN, a load or the acknowledge cycle reads.
        fault: Exception vector that the guest must take instead, or -1.
        error_code: The exception's error code.
        lines: Interrupt inputs that changed meanwhile, as pairs line, count (see `Interrupt`), so that the guest
            knows them before its next instruction and without a message of their own.
    """

    number: U63
    value: U64
    fault: Annotated[int, Meta(ge=-1, le=63)] = -1
    error_code: U64 = 0
    lines: Annotated[tuple[U63, ...], Meta(max_length=16)] = ()


class Interrupt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=18):
    """State of one interrupt input of the guest's CPU.

    Attributes:
        line: x86: 0 is INTR. RISC-V: bit number in ``mip`` (3 MSIP, 7 MTIP, 9 SEIP, 11 MEIP).
        count: Number of level changes so far: odd is asserted, even is not. It never falls, so a late or doubled
            message is recognised and a lost one is healed by the next.
    """

    line: U8
    count: U63


class Report(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=19):
    """A guest's state and its own counts, at the point of the channel where it stands.

    Attributes:
        state: Life of the guest.
        reason: Why it is in that state, one line.
        traps: Traps raised so far, indexed by `TrapKind` value (index 0 unused, 7 kinds).
        bytes_in: Bytes read by traps.
        bytes_out: Bytes written by traps.
        interrupts: Interrupts that the CPU took since power-on.
        faults: Exceptions delivered to the guest since power-on because an I/O instruction was refused.
    """

    state: GuestState
    reason: Text
    traps: Annotated[tuple[U63, ...], Meta(max_length=8)]
    bytes_in: U63
    bytes_out: U63
    interrupts: U63
    faults: U63


class PowerAction(enum.IntEnum):
    """What a machine's own hardware asks for."""

    POWER_OFF = 1
    RESET = 2


class Power(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=20):
    """The hypervisor switches the guest's machine off, or resets it: its devices are new already.

    Attributes:
        action: What to do.
        reason: Which device asked, one line.
    """

    action: PowerAction
    reason: Text


class PrefetchRead(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=21):
    """The guest's CPU has executed INs that were answered from data sent ahead (`TrapReply`).

    It comes before whatever the guest says next; any trap after it voids what is left of the data.

    Attributes:
        elements: How many since the last message of this kind; each is one trap.
    """

    elements: Annotated[int, Meta(ge=1, le=65536)]


class Submit(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=32):
    """A batch of commands for a controller's queue pair (layout: `wire.commands`).

    Payload: the data that commands carry out, in their order; a frame holds the data of whole commands.
    """

    commands: Annotated[bytes, Meta(min_length=1, max_length=1 << 16)]


class Complete(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=33):
    """A batch of completions, and the controller's interrupt.

    Payload: the data that completions carry in, in their order; a frame holds the data of whole completions.

    Attributes:
        interrupts: Monotone count of interrupts on this queue pair; one is raised per batch.
        completions: Packed entries (`wire.commands`).
    """

    interrupts: U63
    completions: Annotated[bytes, Meta(min_length=1, max_length=1 << 16)]


class UnitsChanged(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=34):
    """A unit is another than IDENTIFY told, a disk larger: ask again; controller to hypervisor."""


SessionMessage: TypeAlias = Hello | Welcome | Refuse | Ping | Pong | Bye
TrapMessage: TypeAlias = Trap | TrapReply | Interrupt | Report | Power | PrefetchRead
QueueMessage: TypeAlias = ArmQueue | DisarmQueue | Doorbell | Completions | QueueInterrupt | QueueBroken
SystemCallMessage: TypeAlias = InterceptCalls | ProgramStarted | SystemCall | SystemCallReply
GuestMessage: TypeAlias = TrapMessage | QueueMessage | SystemCallMessage
ControllerMessage: TypeAlias = Submit | Complete | UnitsChanged
Message: TypeAlias = SessionMessage | GuestMessage | ControllerMessage


class Envelope(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The frame around every message.

    Attributes:
        epoch: The sender's life.
        peer_epoch: The receiver's life as the sender knows it, 0 if it does not: a message that outlived a restart of
            the process it was meant for is recognised by it, in both directions.
        sequence: Count of the sender's sequenced messages in this session, from 1; 0 for session messages, which
            stand outside the sequence.
        acknowledged: Last in-order sequence number that the sender has received.
        body: The message.
    """

    epoch: U63
    peer_epoch: U63
    sequence: U63
    acknowledged: U63
    body: Message
