"""Results of the comparison, and what they say about one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iovirt_dist.compare.counts import Counts
from iovirt_dist.compare.job import Job
from iovirt_dist.compare.knowledge import Known
from iovirt_dist.compare.rows import DISK

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """What stood between the program and the disk.

    Attributes:
        guest: What the guest's kernel said of its driver at boot: ``ATA``, ``virtio``, or ``none``.
        virtual_device: Class that stands for the disk in the hypervisor.
        host: Class of the host-side driver.
        controller: Where that one's commands go.
        abi: ABI whose system calls are carried out; empty if none.
        abi_routines: Routines that it takes.
        abi_lines: Lines of code of the modules that they are made of.
    """

    guest: str
    virtual_device: str
    host: str
    controller: str
    abi: str = ""
    abi_routines: int = 0
    abi_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row.

    Attributes:
        counts: Of the job alone: what the same guest counts that does the same job of no bytes is subtracted.
        total: Of the whole life of the guest.
        seconds: From the line before the job's begin to the line at its end, as they reached the host.
        sha256: The guest's checksum; empty if it printed none.
        calls: System calls of the guest that the hypervisor carried out, by name.
        knows: By aspect.
        drivers: On both sides.
        problems: Why this row is no success, one line each.
    """

    counts: Counts
    total: Counts
    seconds: float
    sha256: str
    calls: Mapping[str, int]
    knows: Mapping[str, Known]
    drivers: Drivers
    problems: tuple[str, ...] = ()


def traps_per_mib(result: RowResult, job: Job) -> float:
    """Traps of the job for each MiB that it moves."""
    return result.counts.all_traps * MIB / moved_bytes(job)


def seconds_per_mib(result: RowResult, job: Job) -> float:
    """Seconds for each MiB that the job moves."""
    return result.seconds * MIB / moved_bytes(job)


def moved_bytes(job: Job) -> int:
    """Bytes that the job reads and writes."""
    return sum(request.length for request in job.requests())


def row_json(result: RowResult, job: Job) -> dict[str, Any]:
    """Everything of a row as JSON values."""
    counts, drivers = result.counts, result.drivers
    mib = moved_bytes(job) / MIB
    return {
        "traps": counts.all_traps,
        "traps_by_kind": {kind: count for kind, count in counts.traps.items() if count},
        "traps_per_mib": round(traps_per_mib(result, job), 1),
        "messages": counts.messages,
        "guest_messages": counts.guest_messages,
        "disk_messages": counts.disk_messages,
        "wire_bytes": counts.wire_bytes,
        "guest_wire_bytes": counts.guest_bytes,
        "disk_wire_bytes": counts.disk_bytes,
        "interrupts": counts.interrupts,
        "disk_interrupts": counts.disk_interrupts,
        "commands": counts.commands,
        "seconds": round(result.seconds, 4),
        "mib_per_s": round(mib / result.seconds, 3) if result.seconds else 0.0,
        "sha256": result.sha256,
        "knows": {aspect: known.as_json() for aspect, known in result.knows.items()},
        "system_calls": dict(result.calls),
        "abi": drivers.abi,
        "abi_routines": drivers.abi_routines,
        "abi_lines": drivers.abi_lines,
        "guest_driver": drivers.guest,
        "virtual_device": drivers.virtual_device,
        "host_driver": drivers.host,
        "total": {"traps": result.total.all_traps, "messages": result.total.messages},
        "problems": list(result.problems),
    }


def ratios(results: Mapping[str, RowResult]) -> dict[str, dict[str, float]]:
    """How many times less the driver level needs than each other one: traps, messages, bytes and time."""
    driver = results.get("driver")
    if driver is None:
        return {}
    return {
        f"{name}/driver": {
            "traps": _ratio(result.counts.all_traps, driver.counts.all_traps),
            "messages": _ratio(result.counts.messages, driver.counts.messages),
            "wire_bytes": _ratio(result.counts.wire_bytes, driver.counts.wire_bytes),
            "seconds": _ratio(result.seconds, driver.seconds),
        }
        for name, result in results.items()
        if name != "driver"
    }


def comparison_json(results: Mapping[str, RowResult], job: Job, expected: str) -> dict[str, Any]:
    """The whole comparison as one object.

    Args:
        results: By row.
        job: What each of them did.
        expected: The host's checksum.
    """
    return {
        "ok": all(not result.problems for result in results.values()),
        "job": {
            "kib": job.kib,
            "block_bytes": job.block_bytes,
            "write_percent": job.write_percent,
            "requests": sum(1 for _ in job.requests()),
            "moved_bytes": moved_bytes(job),
            "sha256": expected,
            "controller": DISK,
        },
        "levels": {name: row_json(result, job) for name, result in results.items()},
        "ratios": ratios(results),
    }


def _ratio(one: float, other: float) -> float:
    return round(one / other, 2) if other else 0.0
