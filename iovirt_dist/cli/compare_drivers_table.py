"""The comparison of driver placements as a table of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Final

from iovirt_dist.cli.output import print_table
from iovirt_dist.compare.placement import LOADS, Code, Load, PlacementResult

_HEADINGS: Final = {"native": "native", "driver_domain": "driver domain"}
_MIB: Final = 1 << 20

LEGEND: Final = """\
Native, a device is a controller process and the hypervisor drives it. With a
driver domain, one process serves all devices with the host's own drivers. The
hypervisor's classes are the same, as both speak one command protocol: drivers
of controllers there, front ends of the domain's drivers here. Requests are of
4 KiB; messages are counted from the guest to the device and back, CPU time in
microseconds for each request."""


def placement_rows(results: Mapping[str, PlacementResult]) -> list[tuple[str, ...]]:
    """The cells: a name, then a value for each placement."""
    cells: dict[str, Callable[[PlacementResult], str]] = {}
    for load in LOADS:
        cells |= _deep_cells(load) if load.depth > 1 else _single_cells(load)
    cells |= {
        "processes of three devices": lambda one: str(one.device_processes),
        "their resident MiB": lambda one: f"{one.device_rss_bytes / _MIB:.0f}",
        "processes, guest to all devices": lambda one: str(one.all_processes),
        "classes, lines: in the hypervisor": lambda one: _code(one.hypervisor_side),
        "classes, lines: at the devices": lambda one: _code(one.device_side),
        "after SIGKILL of": lambda one: one.kill.process,
        "  gone with it": lambda one: ", ".join(one.kill.devices),
        "  guest waited, ms: disk": lambda one: f"{one.kill.pause_ms['disk']:.0f}",
        "  guest waited, ms: rng": lambda one: f"{one.kill.pause_ms['rng']:.0f}",
        "  requests submitted again": lambda one: str(one.kill.resubmitted),
        "  blocks checked, errors": lambda one: f"{one.kill.checked}, {one.kill.errors}",
        "sha256 of what was written": lambda one: one.sha256[:12],
    }
    return [(name, *(cell(one) for one in results.values())) for name, cell in cells.items()]


def print_placements(results: Mapping[str, PlacementResult]) -> None:
    """Print table and legend on stdout."""
    print_table(("", *(_HEADINGS[name] for name in results)), placement_rows(results))
    print()
    for name, result in results.items():
        for part, names in {
            "in the hypervisor": result.hypervisor_side.names,
            "at the devices": result.device_side.names,
            "of the host": result.host_drivers or ("nothing, controllers stand for the hardware",),
        }.items():
            print(textwrap.fill(f"{_HEADINGS[name]}, {part}: {', '.join(names)}", 79, subsequent_indent="  "))
    print(f"\n{LEGEND}")


def _code(code: Code) -> str:
    return f"{len(code.names)}, {code.lines}"


def _single_cells(load: Load) -> dict[str, Callable[[PlacementResult], str]]:
    name = load.name
    return {
        f"{load.request}, depth 1: p50 / p99 us": lambda one: f"{one.loads[name].p50_us} / {one.loads[name].p99_us}",
        f"  {load.request}: messages, processes": lambda one: (
            f"{one.loads[name].messages}, {one.loads[name].processes}"
        ),
    }


def _deep_cells(load: Load) -> dict[str, Callable[[PlacementResult], str]]:
    name = load.name
    return {
        f"{load.request}s a second, depth {load.depth}": lambda one: f"{one.loads[name].iops:,}",
        f"  {load.request}: CPU of hypervisor, devices": lambda one: ", ".join(
            f"{spent:.0f}" for spent in one.loads[name].cpu_us.values()
        ),
    }
