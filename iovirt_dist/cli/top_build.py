"""Makes the rows of a sample of the topology, the processes' states, and rates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from iovirt_dist.cli.top_rows import (
    ControllerRow,
    DeviceRow,
    GuestRow,
    HypervisorRow,
    PairRow,
    ProcessRow,
    Sample,
    cost,
    rounded,
    share_out,
)
from iovirt_dist.cli.top_sample import Sampler, count, find, table
from iovirt_dist.topology.specs import NATIVE, ControllerSpec, GuestBase, GuestSpec, HypervisorSpec, Topology

FAULT_COUNTS: Final = (
    "repeated_in_flight", "repeated_done", "queue_full", "strays", "malformed", "medium_errors", "errors",
)  # fmt: skip
"""Counts of a controller that stay 0 while all goes well, those that its status has."""


def make_sample(
    topology: Topology,
    processes: Iterable[Mapping[str, Any]],
    sampler: Sampler,
    at_ns: int,
    problems: Mapping[str, str] | None = None,
) -> Sample:
    """Make the rows of one sample.

    Args:
        topology: What there should be.
        processes: Rows of `iovirt_dist.cli.processes.process_rows`.
        sampler: Has taken what the processes say now.
        at_ns: Wall clock (Unix time).
        problems: Why a host tells nothing, one line, by host.
    """
    known = {str(row["name"]): row for row in processes}
    local = [spec for spec in topology.specs() if spec.name in known]
    guests = [_guest(spec, known, sampler) for spec in local if isinstance(spec, GuestBase)]
    served = [spec for spec in topology.controllers.values() if _server(spec) in known]
    return Sample(
        topology=topology.name,
        at_ns=at_ns,
        problems=problems or {},
        guests=tuple(share_out(guests, topology.controllers.values())),
        controllers=tuple(_controller(topology, spec, known, sampler) for spec in served),
        hypervisors=tuple(_hypervisor(spec, known, sampler) for spec in local if isinstance(spec, HypervisorSpec)),
        driver_domains=tuple(
            ProcessRow(**_process(spec.name, known, sampler)) for spec in local if spec.kind == "driver_domain"
        ),
    )


def _process(name: str, known: Mapping[str, Mapping[str, Any]], sampler: Sampler) -> dict[str, Any]:
    """What every row has; `known` has the process."""
    row, cpu = known[name], sampler.rate(name, "cpu_ns")
    return {
        "name": name,
        "host": row["host"],
        "state": str(row["state"]),
        "reason": str(row["reason"]),
        "restarts": row["restarts"] if isinstance(row["restarts"], int) else 0,
        "cpu": None if cpu is None else rounded(cpu / 1e9),
        "rss_bytes": count(sampler.status(name), "rss_bytes"),
    }


def _guest(spec: GuestSpec, known: Mapping[str, Mapping[str, Any]], sampler: Sampler) -> GuestRow:
    hypervisor, path = spec.hypervisor, ("guests", str(spec.name))
    told = table(sampler.status(hypervisor), *path)
    return GuestRow(
        **_process(spec.name, known, sampler),
        kind=spec.guest_kind,
        level=spec.level.value,
        hypervisor=hypervisor,
        traps_per_s=_rate(sampler, hypervisor, *path, "traps"),
        interrupts_per_s=_rate(sampler, hypervisor, *path, "interrupts_raised"),
        messages_per_s=_both(sampler, hypervisor, path, ("messages_in", "messages_out")),
        unacknowledged=count(told, "unacknowledged") or 0,
        devices=tuple(_device(hypervisor, path, name, sampler) for name in table(told, "devices")),
    )


def _device(hypervisor: str, guest: tuple[str, ...], device: str, sampler: Sampler) -> DeviceRow:
    path = (*guest, "devices", device)
    told = sampler.status(hypervisor)
    controller = find(told, *path, "controller")
    return DeviceRow(
        device=device,
        controller=controller if isinstance(controller, str) else "",
        requests_per_s=_rate(sampler, hypervisor, *path, "requests"),
        bytes_in_per_s=_rate(sampler, hypervisor, *path, "bytes_in"),
        bytes_out_per_s=_rate(sampler, hypervisor, *path, "bytes_out"),
        waiting=count(told, *path, "waiting") or 0,
        in_flight=count(told, *path, "in_flight") or 0,
        weight=count(told, *guest, "qos", device, "weight") or None,
        throttled=count(told, *guest, "qos", device, "throttled") or 0,
    )


def _server(spec: ControllerSpec) -> str:
    """The process that serves a controller's device."""
    return spec.name if spec.driver == NATIVE else spec.driver


def _controller(
    topology: Topology, spec: ControllerSpec, known: Mapping[str, Mapping[str, Any]], sampler: Sampler
) -> ControllerRow:
    process = _server(spec)
    path = () if spec.driver == NATIVE else ("devices", str(spec.name))
    pairs = _pairs(topology, spec, (process, *path), sampler)
    told = table(sampler.status(process), *path)
    return ControllerRow(
        **_process(process, known, sampler) | {"name": spec.name},
        kind=spec.kind,
        driver=spec.driver,
        commands_per_s=_rate(sampler, process, *path, "commands"),
        syncs_per_s=_rate(sampler, process, *path, "syncs"),
        in_flight=sum(pair.in_flight for pair in pairs),
        waiting=sum(pair.waiting for pair in pairs),
        faults={key: value for key in FAULT_COUNTS if (value := count(told, key)) is not None},
        pairs=pairs,
    )


def _pairs(topology: Topology, spec: ControllerSpec, place: tuple[str, ...], sampler: Sampler) -> tuple[PairRow, ...]:
    """The queue pairs that a hypervisor or the controller tells of; `place` is where the controller does."""
    process, *path = place
    at_controller = table(sampler.status(process), *path, "shares")
    costs = {
        name: cost(
            sampler.rate(process, *path, "shares", name, "bytes") or 0,
            sampler.rate(process, *path, "shares", name, "commands") or 0,
        )
        for name in at_controller
    }
    total = sum(costs.values())
    rows = []
    for name in topology.hypervisors:
        told, shared = table(sampler.status(name), "controllers", spec.name), table(at_controller, name)
        if told or shared:
            row = _pair(spec, name, told, shared, sampler)
            rows.append(replace(row, share=rounded(costs.get(name, 0) / total) if total else None))
    return tuple(rows)


def _pair(
    spec: ControllerSpec, hypervisor: str, told: Mapping[str, Any], shared: Mapping[str, Any], sampler: Sampler
) -> PairRow:
    """A queue pair by what its two ends tell, `told` by the hypervisor and `shared` by the controller."""
    in_flight = count(told, "in_flight")
    return PairRow(
        hypervisor=hypervisor,
        connected=(told or {"connected": shared.get("open")}).get("connected") is True,
        commands_per_s=_rate(sampler, hypervisor, "controllers", spec.name, "submitted"),
        in_flight=(count(shared, "in_flight") if in_flight is None else in_flight) or 0,
        credits=count(told, "credits") or 0,
        waiting=count(told, "waiting") or 0,
        queued=count(shared, "waiting") or 0,
        weight=count(shared, "weight") or spec.arbitration.get(hypervisor, 1),
        share=None,
        resubmitted=count(told, "resubmitted") or 0,
    )


def _hypervisor(spec: HypervisorSpec, known: Mapping[str, Mapping[str, Any]], sampler: Sampler) -> HypervisorRow:
    guests = table(sampler.status(spec.name), "guests")
    paths = [("guests", name) for name in guests]
    return HypervisorRow(
        **_process(spec.name, known, sampler),
        guests=sum(find(guest, "connected") is True for guest in guests.values()),
        traps_per_s=_total(_rate(sampler, spec.name, *path, "traps") for path in paths),
        interrupts_per_s=_total(_rate(sampler, spec.name, *path, "interrupts_raised") for path in paths),
        messages_per_s=_total(_both(sampler, spec.name, path, ("messages_in", "messages_out")) for path in paths),
    )


def _rate(sampler: Sampler, name: str, *path: str) -> float | None:
    found = sampler.rate(name, *path)
    return None if found is None else rounded(found)


def _both(sampler: Sampler, name: str, path: tuple[str, ...], keys: tuple[str, ...]) -> float | None:
    """The sum of rates of one table."""
    return _total(_rate(sampler, name, *path, key) for key in keys)


def _total(rates: Iterable[float | None]) -> float | None:
    """The sum of those that are known; None if none is."""
    known = [rate for rate in rates if rate is not None]
    return rounded(sum(known)) if known else None
