"""The rows that ``iovirt top`` shows, and what follows from several of them: data, and shares of controllers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from iovirt_dist.mux.flow import MIN_COST
from iovirt_dist.topology.specs import ControllerSpec


def cost(bytes_per_s: float, requests_per_s: float) -> float:
    """What requests cost a controller, bytes a second, counted as schedulers count."""
    return max(bytes_per_s, requests_per_s * MIN_COST)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """A guest's device. Rates are per second, None while not known; so in all rows.

    Attributes:
        device: ``disk``, ``console``, ``virtio_console``, ``rng`` or ``net``.
        controller: What serves it.
        requests_per_s: Requests that went to the controller.
        bytes_in_per_s: Bytes that came from the device.
        bytes_out_per_s: Bytes that went there.
        waiting: Requests in the hypervisor's queue.
        in_flight: Requests at the controller.
        weight: Its weight, where shares are by weight.
        share: Its part of what the controller does for guests, 0..1.
        entitled: The part that weights give it among those that compete now.
        throttled: How often a limit held it back so far.
    """

    device: str
    controller: str
    requests_per_s: float | None
    bytes_in_per_s: float | None
    bytes_out_per_s: float | None
    waiting: int
    in_flight: int
    weight: int | None = None
    share: float | None = None
    entitled: float | None = None
    throttled: int = 0

    @property
    def cost(self) -> float:
        """What its requests cost the controller, bytes a second."""
        return cost((self.bytes_in_per_s or 0) + (self.bytes_out_per_s or 0), self.requests_per_s or 0)

    @property
    def competes(self) -> bool:
        """Whether it wants something of the controller now."""
        return self.cost > 0 or self.waiting > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """What every row of a process has.

    Attributes:
        name: The process; of a controller that a driver domain serves, the device.
        host: Where it runs, None if the topology names no hosts.
        state: As in ``iovirt ps``.
        reason: Why, may be empty.
        restarts: How often its supervisor has started it again.
        cpu: Processors that it keeps busy, 1.0 for one.
        rss_bytes: Resident memory.
    """

    name: str
    host: str | None
    state: str
    reason: str
    restarts: int
    cpu: float | None
    rss_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRow(ProcessRow):
    """A guest, as its hypervisor counts; `unacknowledged` are messages on their way to it."""

    kind: str
    level: str
    hypervisor: str
    traps_per_s: float | None
    interrupts_per_s: float | None
    messages_per_s: float | None
    unacknowledged: int
    devices: tuple[DeviceRow, ...]

    @property
    def requests_per_s(self) -> float:
        """Over all devices."""
        return sum(device.requests_per_s or 0 for device in self.devices)

    @property
    def bytes_per_s(self) -> float:
        """Over all devices, both ways."""
        return sum((device.bytes_in_per_s or 0) + (device.bytes_out_per_s or 0) for device in self.devices)

    @property
    def waiting(self) -> int:
        """Over all devices."""
        return sum(device.waiting for device in self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A hypervisor's queue pair at a controller, as the hypervisor counts; what arbitration does, as the controller.

    Attributes:
        hypervisor: Whose.
        connected: Whether its session is open.
        commands_per_s: Commands submitted.
        in_flight: Commands at the controller.
        credits: How many may be.
        waiting: Requests in the hypervisor's queue.
        queued: Commands that arbitration has not taken yet.
        weight: Of the pair in the controller's arbitration.
        share: Its part of what the controller does, 0..1.
        resubmitted: Commands submitted again so far.
    """

    hypervisor: str
    connected: bool
    commands_per_s: float | None
    in_flight: int
    credits: int
    waiting: int
    queued: int
    weight: int
    share: float | None
    resubmitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerRow(ProcessRow):
    """A controller; `driver` is `NATIVE` or the driver domain that is its process."""

    kind: str
    driver: str
    commands_per_s: float | None
    syncs_per_s: float | None
    in_flight: int
    waiting: int
    faults: Mapping[str, int]
    pairs: tuple[PairRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorRow(ProcessRow):
    """A hypervisor; `guests` have a session with it, rates are over all guests."""

    guests: int
    traps_per_s: float | None
    interrupts_per_s: float | None
    messages_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at a topology.

    Attributes:
        topology: Its name.
        at_ns: Wall clock (Unix time).
        problems: Why a host tells nothing, one line, by host.
    """

    topology: str
    at_ns: int
    problems: Mapping[str, str] = field(default_factory=dict)
    guests: tuple[GuestRow, ...] = ()
    controllers: tuple[ControllerRow, ...] = ()
    hypervisors: tuple[HypervisorRow, ...] = ()
    driver_domains: tuple[ProcessRow, ...] = ()


def share_out(guests: Iterable[GuestRow], controllers: Iterable[ControllerSpec]) -> list[GuestRow]:
    """Tell each guest's device its share of its controller, and what weights entitle it to.

    A weight of a guest is one among the guests of its hypervisor; the arbitration's weights are among hypervisors.
    """
    rows = list(guests)
    turns = {str(spec.name): spec.arbitration for spec in controllers}
    competing: dict[str, list[tuple[str, DeviceRow]]] = {}
    for guest in rows:
        for device in guest.devices:
            if device.competes:
                competing.setdefault(device.controller, []).append((guest.hypervisor, device))
    crowds = {name: _crowd(devices, turns.get(name, {})) for name, devices in competing.items()}
    return [
        replace(guest, devices=tuple(_with_share(device, guest.hypervisor, crowds) for device in guest.devices))
        for guest in rows
    ]


class _Crowd(NamedTuple):
    """The devices that compete for a controller.

    Attributes:
        cost: What they cost together.
        parts: By hypervisor: the part of the controller that a weight of 1 gives; empty if weights do not count.
    """

    cost: float
    parts: Mapping[str, float]


def _crowd(devices: list[tuple[str, DeviceRow]], turns: Mapping[str, int]) -> _Crowd:
    """Sum up the devices that compete, each with its hypervisor; `turns` are the arbitration's weights."""
    total = sum(device.cost for _, device in devices)
    weights: dict[str, int] = {}
    for hypervisor, device in devices:
        if device.weight is None:
            return _Crowd(total, {})
        weights[hypervisor] = weights.get(hypervisor, 0) + device.weight
    all_turns = sum(turns.get(hypervisor, 1) for hypervisor in weights)
    return _Crowd(total, {name: turns.get(name, 1) / all_turns / weight for name, weight in weights.items()})


def _with_share(device: DeviceRow, hypervisor: str, crowds: Mapping[str, _Crowd]) -> DeviceRow:
    """One device among those that compete for its controller, if there are any."""
    crowd = crowds.get(device.controller)
    if crowd is None:
        return device
    part = crowd.parts.get(hypervisor) if device.competes else None
    return replace(
        device,
        share=rounded(device.cost / crowd.cost) if crowd.cost else None,
        entitled=None if part is None or device.weight is None else rounded(part * device.weight),
    )


def rounded(value: float) -> float:
    """As exact as anybody wants to read it."""
    return round(value, 3)
