"""What happens to a hypervisor, what it has done in return, and what it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.hypervisor.plan import GuestPlan
from iovirt_dist.platform.qos import Qos
from iovirt_dist.step import Record, TracePoint
from iovirt_dist.wire.codec import Buffer, Frames
from iovirt_dist.wire.session import SendFrames


class Started(NamedTuple):
    """The process runs; sessions may begin."""


class GuestFramesReceived(Record, frozen=True):
    """A message came from a guest's socket."""

    peer: bytes
    frames: Sequence[Buffer]


class ControllerFramesReceived(Record, frozen=True):
    """A message came from a controller's socket."""

    controller: str
    frames: Sequence[Buffer]


class TimerFired(NamedTuple):
    """The deadline that the core gave has come, or any earlier time."""


class QosChanged(NamedTuple):
    """Somebody has set what a guest may have of a device."""

    guest: str
    device: str
    qos: Qos


class GuestAdded(NamedTuple):
    """A guest is served from now on; its plan's attachments name queue pairs that the hypervisor has."""

    plan: GuestPlan


class GuestRemoved(NamedTuple):
    """A guest is served no more: its machine goes, and its requests complete into nothing."""

    guest: str


class StopRequested(NamedTuple):
    """The process is about to end."""

    reason: str


Event: TypeAlias = (
    Started
    | GuestFramesReceived
    | ControllerFramesReceived
    | TimerFired
    | QosChanged
    | GuestAdded
    | GuestRemoved
    | StopRequested
)


SendToGuest = SendFrames
"""Send frames to a guest: what its session says goes out as it is."""


class SendToController(Record, frozen=True):
    """Send frames to a controller."""

    controller: str
    frames: Frames


class Note(NamedTuple):
    """Log one line of life cycle."""

    text: str


Action: TypeAlias = SendToGuest | SendToController | Note | TracePoint


@dataclass(frozen=True, slots=True)
class HypervisorConfig:
    """What a hypervisor serves.

    Attributes:
        name: Its name in the topology.
        epoch: This life.
        lease_ms: Silence after which a peer counts as lost.
        wall_minus_monotonic_ns: Wall clock minus monotonic clock, so that the core needs no clock.
        plans: Guests by name; their attachments name queue pairs of `controllers`.
        controllers: Queue pairs by controller name.
    """

    name: str
    epoch: int
    lease_ms: int
    wall_minus_monotonic_ns: int
    plans: Mapping[str, GuestPlan]
    controllers: Mapping[str, QueuePair]
