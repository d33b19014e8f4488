"""What `backend.Backend` wants done, in the order in which it says so."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Send(NamedTuple):
    """Send a message to the front end; descriptors are to be closed when they are sent, or cannot be."""

    data: bytes
    fds: tuple[int, ...] = ()


class SendRequest(NamedTuple):
    """Write a request of ours to a descriptor that the front end gave for it; no reply comes."""

    fd: int
    data: bytes


class QueueStarted(NamedTuple):
    """Walk this queue's ring from now on, from its `Vring.base`; look at once, and at each kick."""

    queue: int


class QueueStopping(NamedTuple):
    """Stop walking this queue's ring, forget its kick at once, and answer with `Backend.queue_stopped`."""

    queue: int


class KickChanged(NamedTuple):
    """A queue that runs is kicked by another descriptor; the old one is closed by a later action."""

    queue: int


class CallChanged(NamedTuple):
    """A queue that runs calls another descriptor, or none; the old one is closed by a later action."""

    queue: int


class MemoryChanged(NamedTuple):
    """Queues that run must look up their areas again, by the guest addresses that they were started with."""


class StatusChanged(NamedTuple):
    """The driver wrote the device status register (VIRTIO, section 2.1).

    It is told, and nothing else: QEMU writes 0 before it stops the queues, and not only when the driver resets the
    device. User-Mode Linux never writes it.
    """

    status: int


class Reset(NamedTuple):
    """Reset the device; no queue runs. Answer with `Backend.device_reset`."""


class Signal(NamedTuple):
    """Signal an event."""

    fd: int


class CloseFds(NamedTuple):
    """Close descriptors; nothing refers to them any more."""

    fds: tuple[int, ...]


class Disconnect(NamedTuple):
    """Close the connection; the back end has already forgotten it.

    Attributes:
        reason: A short stable word.
    """

    reason: str


class Note(NamedTuple):
    """Tell the log; at most `backend.MAX_NOTES` a connection."""

    text: str


Action: TypeAlias = (
    Send
    | SendRequest
    | QueueStarted
    | QueueStopping
    | KickChanged
    | CallChanged
    | MemoryChanged
    | StatusChanged
    | Reset
    | Signal
    | CloseFds
    | Disconnect
    | Note
)
