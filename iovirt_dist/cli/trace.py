"""``iovirt trace``: the processes' trace points, merged by time: the path of each I/O.

Commands and completions carry an instance number, which a hypervisor gave a guest; whose it is says the hypervisor's
``submit`` point of the same number. Times are those of one clock on one host.
"""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iovirt_dist.cli.output import EXIT_DONE, note, print_json, printable
from iovirt_dist.cli.tail import LineTail
from iovirt_dist.cli.terminal import is_up
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology import Topology

HOLD_NS: Final = 1_500_000_000
"""How long a followed point waits for older ones of other processes, which write twice a second."""

_FOLLOW_INTERVAL_S: Final = 0.1
_HEAD: Final = ("at_ns", "process", "guest", "number", "event")
_HEXADECIMAL: Final = frozenset({"address", "caller", "asserted"})

Point = dict[str, Any]


@dataclass(slots=True)
class Selection:
    """Which points are wanted.

    Attributes:
        guest: Of this guest; empty for all.
        number: Of this trap or request; None for all.
    """

    guest: str = ""
    number: int | None = None
    _owners: dict[tuple[str, int], str] = field(default_factory=dict)

    def take(self, points: Iterable[Point]) -> Iterator[Point]:
        """Give each point its guest, if that is known, and pass on what is wanted; points come in their order."""
        for point in points:
            self._own(point)
            if (not self.guest or point["guest"] == self.guest) and self.number in (None, point["number"]):
                yield point

    def _own(self, point: Point) -> None:
        """Learn whose an instance number is, or tell it."""
        instance = point.get("instance")
        if not isinstance(instance, int):
            return
        if point["event"] == "submit":
            self._owners[point["process"], instance] = point["guest"]
        elif not point["guest"]:
            point["guest"] = self._owners.get((point.get("hypervisor", ""), instance), "")


def parse_point(line: str) -> Point | None:
    """Read a line of a trace file; None if it is none, such as one that is half written."""
    try:
        point = json.loads(line)
    except ValueError:
        return None
    if not isinstance(point, dict) or not all(key in point for key in _HEAD) or not isinstance(point["at_ns"], int):
        return None
    return point


def format_point(point: Mapping[str, Any], widths: tuple[int, int]) -> str:
    """Write a point as one aligned line: time, process, guest, number, event, fields.

    Args:
        point: Any.
        widths: Of process and guest.
    """
    seconds, ns = divmod(point["at_ns"], 1_000_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    fields = " ".join(f"{key}={_value(key, value)}" for key, value in point.items() if key not in _HEAD)
    process, guest = point["process"], point["guest"] or "-"
    line = f"{clock}.{ns // 1000:06} {process:<{widths[0]}} {guest:<{widths[1]}} {point['number']:>7} "
    return printable(f"{line}{point['event']:<11} {fields}").rstrip()


def _value(key: str, value: Any) -> str:
    return f"{value:#x}" if key in _HEXADECIMAL and isinstance(value, int) else str(value)


def read_points(paths: Iterable[Path]) -> Iterator[Point]:
    """Merge trace files by time; each begins with what was put aside as ``.1``."""
    return heapq.merge(*(_file_points(path) for path in paths), key=lambda point: point["at_ns"])


def _file_points(path: Path) -> Iterator[Point]:
    for part in (path.with_name(f"{path.name}.1"), path):
        try:
            with part.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if (point := parse_point(line)) is not None:
                        yield point
        except FileNotFoundError:
            continue


def switch_trace(topology: Topology, *, on: bool) -> int:
    """Switch tracing on or off in all processes of a topology; they notice within half a second.

    Raises:
        LocalError: Nothing is up.
    """
    run_dir = RunDir(topology.run_dir)
    if not on:
        run_dir.trace_switch.unlink(missing_ok=True)
        note("tracing is off; what was traced stays")
        return EXIT_DONE
    if not is_up(run_dir):
        raise LocalError("nothing is up", str(run_dir.path), "start it with 'iovirt up -d', then trace")
    run_dir.trace_switch.touch()
    note("tracing is on, from half a second on; 'iovirt trace' shows it, 'iovirt trace --off' ends it")
    return EXIT_DONE


def show_trace(topology: Topology, selection: Selection, *, lines: int, follow: bool, as_json: bool) -> int:
    """Show what was traced, and go on if asked to.

    Args:
        topology: Whose processes.
        selection: Which points.
        lines: How many of the last ones; 0 for all.
        follow: Go on until interrupted.
        as_json: One object; while following one for each point, a line each.

    Raises:
        ConfigError: There is no such guest.
    """
    guests = list(topology.guests)
    if selection.guest and selection.guest not in guests:
        raise ConfigError(f"no guest '{selection.guest}'", topology.label, f"guests: {', '.join(guests)}")
    run_dir = RunDir(topology.run_dir)
    names = [str(spec.name) for spec in topology.specs()]
    paths = {name: run_dir.trace_file(name) for name in names}
    widths = max(map(len, names)), max(map(len, guests), default=1)
    tail = LineTail(paths) if follow else None
    points = list(deque(selection.take(read_points(paths.values())), maxlen=lines or None))
    if tail is None and as_json:
        print_json({"tracing": run_dir.trace_switch.exists(), "points": points})
        return EXIT_DONE
    _show(points, widths, as_json=as_json)
    if tail is not None:
        _follow(tail, selection, widths, as_json=as_json)
    elif not points:
        note("no trace points; 'iovirt trace --on' makes the processes give some")
    return EXIT_DONE


def _show(points: Iterable[Point], widths: tuple[int, int], *, as_json: bool) -> None:
    for point in points:
        print(json.dumps(point, separators=(",", ":")) if as_json else format_point(point, widths))
    sys.stdout.flush()


def _follow(tail: LineTail, selection: Selection, widths: tuple[int, int], *, as_json: bool) -> None:
    """Show new points for ever, in the order of time."""
    waiting: list[Point] = []
    while True:
        waiting += [point for line in tail.read() if (point := parse_point(line.text)) is not None]
        waiting.sort(key=lambda point: point["at_ns"])
        until_ns = time.time_ns() - HOLD_NS
        ripe = sum(point["at_ns"] <= until_ns for point in waiting)
        _show(selection.take(waiting[:ripe]), widths, as_json=as_json)
        del waiting[:ripe]
        time.sleep(_FOLLOW_INTERVAL_S)
