"""``ps`` and ``logs``: what runs, and what it said."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from iovirt_dist.cli.output import EXIT_DONE, format_age, note, print_json, print_table, printable
from iovirt_dist.cli.tail import LinePrinter, LineTail, clean_line, last_lines
from iovirt_dist.errors import ConfigError
from iovirt_dist.runtime.remote_view import HostsView, view_hosts
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.runtime.view import View, view_topology
from iovirt_dist.topology import GuestBase, Topology, VmmSpec
from iovirt_dist.topology.specs import AnySpec, DriverDomainSpec

_FOLLOW_INTERVAL_S = 0.05


def process_rows(topology: Topology, now_ns: int, view: View | None = None) -> list[dict[str, Any]]:
    """Describe every process of a topology.

    Args:
        topology: Which processes there should be.
        now_ns: Wall clock (Unix time).
        view: What is known of them; None to look.

    Returns:
        A row per process in starting order: what its status file and its supervisor say, checked against the kernel.
    """
    seen = view_topology(topology) if view is None else view
    qos = {name: held for status in seen.living().values() for name, held in _qos(status)}
    return [_row(topology, spec, seen, now_ns) | {"qos": qos.get(spec.name)} for spec in topology.specs()]


def seen_rows(seen: HostsView, now_ns: int) -> list[dict[str, Any]]:
    """Describe every process, as `process_rows`; those of a host that tells nothing are in state ``unknown``."""
    rows = process_rows(seen.topology, now_ns, seen.view)
    return [row | {"state": "unknown"} if row["host"] in seen.problems else row for row in rows]


def _row(topology: Topology, spec: AnySpec, view: View, now_ns: int) -> dict[str, Any]:
    """One process: what it is, and how it is."""
    status, under = view.statuses.get(spec.name), view.supervised.get(spec.name, {})
    alive = spec.name in view.alive
    row: dict[str, Any] = {"name": spec.name, "kind": spec.kind, "host": topology.host_of(spec) or None}
    row |= {"state": "down", "reason": "", "pid": None, "restarts": under.get("restarts", 0), "uptime_s": None}
    row |= {"epoch": None, **_nature(topology, spec)}
    if under.get("state") in ("backoff", "ended", "stopped"):
        row |= {"state": under["state"], "reason": under.get("exit", "")}
    elif status is not None and alive:
        row |= {"state": status.state, "reason": status.reason, "pid": status.pid, "epoch": status.epoch}
        row["uptime_s"] = round((now_ns - status.started_ns) / 1e9, 3)
    elif under.get("pid"):
        row |= {"state": "starting", "pid": under["pid"]}
    elif status is not None:
        row |= {"state": "dead", "reason": f"pid {status.pid} is gone"}
    return row | {"status": status.content if status is not None and alive else {}}


def _nature(topology: Topology, spec: AnySpec) -> dict[str, Any]:
    """What a process is by its topology, and where it is found."""
    row: dict[str, Any] = {"guest": None, "level": None, "devices": None}
    if isinstance(spec, GuestBase):
        row |= {"guest": spec.guest_kind, "level": spec.level.value, "where": f"on {spec.hypervisor}"}
    elif isinstance(spec, VmmSpec):
        row["where"] = f"{spec.guest.vmm} of {spec.guest.name}"
    elif isinstance(spec, DriverDomainSpec):
        row |= {"devices": list(spec.devices), "where": f"serves {', '.join(spec.devices)}"}
    else:
        row["where"] = _short(spec.endpoint, topology)
    return row


def _qos(status: ProcessStatus) -> list[tuple[str, dict[str, Any]]]:
    """What guests may have of their devices, and what waits, as their hypervisor says; nothing for other processes."""
    guests = status.content.get("guests") if status.kind == "hypervisor" else None
    if not isinstance(guests, dict):
        return []
    return [(name, guest["qos"]) for name, guest in guests.items() if isinstance(guest, dict) and "qos" in guest]


def _short(endpoint: str, topology: Topology) -> str:
    """An endpoint without the run directory's path."""
    return endpoint.removeprefix(f"ipc://{topology.run_dir}/")


def show_processes(topology: Topology, *, as_json: bool) -> int:
    """The work of ``iovirt ps``: of all hosts if there are several and none was chosen."""
    seen = view_hosts(topology)
    rows = seen_rows(seen, time.time_ns())
    if as_json:
        shown = {"topology": topology.name, "run_dir": str(topology.run_dir), "problems": seen.problems}
        print_json({**shown, "processes": rows})
        return EXIT_DONE
    columns = ["NAME", "KIND", "LEVEL", "STATE", "PID", "RST", "UP", "WHERE"]
    cells = [_cells(row) for row in rows]
    if topology.hosts:
        columns.insert(-1, "HOST")
        for row, line in zip(rows, cells, strict=True):
            line.insert(-1, row["host"])
    print_table(columns, cells)
    for row in rows:
        if row["reason"]:
            print(printable(f"{row['name']}: {row['reason']}"))
    for problem in seen.problems.values():
        note(problem)
    return EXIT_DONE


def _cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    return [
        row["name"],
        row["guest"] or row["kind"].replace("_", " "),
        row["level"] or "-",
        row["state"],
        str(row["pid"] or "-"),
        str(row["restarts"]),
        "-" if row["uptime_s"] is None else format_age(row["uptime_s"]),
        row["where"],
    ]


def show_logs(topology: Topology, names: Sequence[str], *, follow: bool, lines: int, as_json: bool) -> int:
    """The work of ``iovirt logs``.

    Raises:
        ConfigError: There is no process of that name.
    """
    known = [*(process.name for process in topology.processes()), SUPERVISOR]
    for name in names:
        if name not in known:
            raise ConfigError(f"no process '{name}'", topology.label, f"processes: {', '.join(known)}")
    chosen = list(names) or known
    run_dir = RunDir(topology.run_dir)
    paths = {name: run_dir.log(name) for name in chosen}
    tail = LineTail(paths) if follow else None
    last = {name: [clean_line(name, line) for line in last_lines(path, lines)] for name, path in paths.items()}
    if as_json:
        print_json({"logs": {name: [line.text for line in entry] for name, entry in last.items()}})
        return EXIT_DONE
    printer = LinePrinter(chosen, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    for entry in last.values():
        for line in entry:
            print(printer.format(line))
    while tail is not None:
        for line in tail.read():
            print(printer.format(line), flush=True)
        time.sleep(_FOLLOW_INTERVAL_S)
    return EXIT_DONE
