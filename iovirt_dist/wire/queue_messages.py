"""Messages about armed virtqueues (guest protocol): the driver level.

When a guest's driver enables a queue of a virtio device, the hypervisor *arms* it in the guest's process: what KVM's
ioeventfd and vhost's VHOST_SET_VRING_ADDR do. From then on a store to the notify register is answered there: the ring
is walked, and everything that it offers leaves as one `Doorbell`. Requests come back as `Completions`, which the
guest's process writes to guest memory and to the used ring. The layouts of both batches are in `wire.requests`.

Who interrupts. Only the guest's process sees, once it has written the used ring, whether the driver wants to be
notified (VIRTIO 1.2, sections 2.7.7 and 2.7.10). A doorbell tells the hypervisor what the driver wanted last
(`Doorbell.interrupt_at`), and the hypervisor raises the interrupt along with the completions if that says so. An
interrupt that was not due is allowed (section 2.7.7.1: the driver handles spurious ones); one that is due and was not
raised is asked for by `QueueInterrupt`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from iovirt_dist.wire.fields import U16, U32, U63, U64, Name, Text

NEVER = -1
"""`Doorbell.interrupt_at`: the driver wants no interrupt."""
ALWAYS = 0
"""`Doorbell.interrupt_at`: the driver wants an interrupt with every batch."""


class ArmQueue(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=24):
    """A driver has enabled a queue; hypervisor to guest.

    Attributes:
        device: Number of the virtio device in its machine.
        queue: Number of the queue in its device.
        generation: Counts the times that any queue of this guest was armed; it is in every message about the queue,
            so that what was meant for an earlier life of it is recognised.
        notify: Guest physical address of the device's notify register; the value stored is the queue's number.
        size: Queue Size, entries.
        descriptors: Guest physical address of the descriptor table (or packed ring).
        driver_area: Address of the available ring (or driver event suppression).
        device_area: Address of the used ring (or device event suppression).
        features: Negotiated features, as in VIRTIO 1.2, section 6.
        header_bytes: Readable bytes at the start of each request that travel inside its entry.
    """

    device: U16
    queue: U16
    generation: U32
    notify: U64
    size: Annotated[int, Meta(ge=1, le=32768)]
    descriptors: U64
    driver_area: U64
    device_area: U64
    features: U64
    header_bytes: Annotated[int, Meta(ge=0, le=64)]


class DisarmQueue(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=25):
    """The queue or its device was reset; hypervisor to guest. What is in flight is dropped."""

    device: U16
    queue: U16
    generation: U32


class Doorbell(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=26):
    """Requests gathered from a ring; guest to hypervisor.

    Payload: what is readable behind the header of each request that has that, in their order; a frame holds the data
    of whole requests.

    Attributes:
        device: As in `ArmQueue`, as are `queue` and `generation`.
        notifications: Stores to the notify register that this message stands for; each is one trap. 0 in the second and
            further messages of a ring that offers more than one message carries.
        interrupt_at: The driver wants an interrupt with the completion of this number, counted from 1 since the queue
            was armed; or `NEVER`, or `ALWAYS`.
        requests: Packed entries; empty if the ring offered nothing.
        number: Of the trap that told of the ring last, as the guest counts traps; 0 before the first.
    """

    device: U16
    queue: U16
    generation: U32
    notifications: U32
    interrupt_at: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
    requests: Annotated[bytes, Meta(max_length=100_000)]
    number: U64 = 0


class Completions(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=27):
    """Requests that are done; hypervisor to guest.

    Payload: what is to be written into each request's buffers, in their order; a frame holds whole requests' data.

    Attributes:
        device: As in `ArmQueue`, as are `queue` and `generation`.
        interrupt: The hypervisor raised the device's interrupt for this batch.
        completions: Packed entries; none if the device has run out of requests and wants the ring looked at: there
            are drivers that put back receive buffers and ring no doorbell.
        lines: Interrupt inputs that changed, as in `TrapReply`; they take effect once the used ring is written.
    """

    device: U16
    queue: U16
    generation: U32
    interrupt: bool
    completions: Annotated[bytes, Meta(max_length=100_000)]
    lines: Annotated[tuple[U63, ...], Meta(max_length=16)] = ()


class QueueInterrupt(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=28):
    """The driver wants an interrupt for completions whose batch came without one; guest to hypervisor."""

    device: U16
    queue: U16
    generation: U32


class QueueBroken(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=29):
    """The ring cannot be walked; guest to hypervisor. The device says DEVICE_NEEDS_RESET; the queue stays silent.

    Attributes:
        device: As in `ArmQueue`, as are `queue` and `generation`.
        reason: A short stable word for counting, such as ``descriptor-loop``.
        detail: Free text for the log.
    """

    device: U16
    queue: U16
    generation: U32
    reason: Name
    detail: Text = ""
