"""How a sample looks: tables of guests, controllers and hypervisors as lines of a given width. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import Final, Literal, NamedTuple, get_args

from iovirt_dist.cli.output import printable
from iovirt_dist.cli.top_layout import Column, Line, Row, figure, lay_out, mebibytes, percent
from iovirt_dist.cli.top_rows import ControllerRow, DeviceRow, GuestRow, HypervisorRow, PairRow, ProcessRow, Sample
from iovirt_dist.topology.specs import NATIVE

SortKey = Literal["name", "iops", "bytes", "waiting", "traps", "interrupts", "messages"]
SORT_KEYS: Final[tuple[SortKey, ...]] = get_args(SortKey)

_SORTS: Final[dict[SortKey, Callable[[GuestRow], float]]] = {
    "iops": lambda guest: guest.requests_per_s,
    "bytes": lambda guest: guest.bytes_per_s,
    "waiting": lambda guest: guest.waiting,
    "traps": lambda guest: guest.traps_per_s or 0,
    "interrupts": lambda guest: guest.interrupts_per_s or 0,
    "messages": lambda guest: guest.messages_per_s or 0,
}

_GOOD: Final = frozenset({"running", "stopped", "halted", "waiting", "starting", "ended", "connected"})
"""States that are nothing to worry about."""

_SHORT: Final = {"virtio_console": "hvc0"}
"""Names of devices that are too long for a column."""

_LEAST_GUESTS: Final = 4
"""Lines that guests have however little room there is: head, two guests, and how many more."""


class GuestLine(NamedTuple):
    """A line of the guests' table: a guest with its busiest device, or one more device of the guest above it."""

    guest: GuestRow
    device: DeviceRow | None
    first: bool


class ControllerLine(NamedTuple):
    """A line of the controllers' table: a controller, or one of its queue pairs below it."""

    controller: ControllerRow
    pair: PairRow | None


def sort_guests(guests: Sequence[GuestRow], key: SortKey) -> list[GuestRow]:
    """Put guests in order, those with most of something first; by name: as the topology has them."""
    return list(guests) if key == "name" else sorted(guests, key=_SORTS[key], reverse=True)


def guest_lines(guests: Sequence[GuestRow]) -> list[GuestLine]:
    """Give each guest a line, with its busiest device, and one for every other device that does something."""
    lines = []
    for guest in guests:
        devices = sorted(guest.devices, key=lambda device: (device.cost, device.waiting), reverse=True)
        lines.append(GuestLine(guest, devices[0] if devices else None, first=True))
        lines += [GuestLine(guest, device, first=False) for device in devices[1:] if device.competes]
    return lines


def _of_guest(cell: Callable[[GuestRow], str]) -> Callable[[GuestLine], str]:
    return lambda line: cell(line.guest) if line.first else ""


def _of_device(cell: Callable[[DeviceRow], str]) -> Callable[[GuestLine], str]:
    return lambda line: cell(line.device) if line.device is not None else "-"


def _share(device: DeviceRow) -> str:
    """The share, and what weights entitle to."""
    share = percent(device.share)
    return share if device.entitled is None else f"{share.removesuffix('%')}/{percent(device.entitled)}"


def _memory(rss_bytes: int | None) -> str:
    return "-" if rss_bytes is None else f"{rss_bytes >> 20}M"


_GUEST: Final[tuple[Column[GuestLine], ...]] = (
    Column("GUEST", 0, _of_guest(lambda guest: guest.name), left=True),
    Column("KIND", 12, _of_guest(lambda guest: guest.kind), left=True),
    Column("LEVEL", 8, _of_guest(lambda guest: guest.level), left=True),
    Column("STATE", 2, _of_guest(lambda guest: guest.state), 8, left=True),
    Column("HV", 7, _of_guest(lambda guest: guest.hypervisor), left=True),
    Column("HOST", 6, _of_guest(lambda guest: guest.host or "-"), left=True),
    Column("DEV", 1, _of_device(lambda device: _SHORT.get(device.device, device.device)), 7, left=True),
    Column("IOPS", 0, _of_device(lambda device: figure(device.requests_per_s)), 6),
    Column("MiB/s", 1, _of_device(lambda device: mebibytes(_moved(device))), 5),
    Column("WAIT", 3, _of_device(lambda device: str(device.waiting)), 4),
    Column("FLY", 3, _of_device(lambda device: str(device.in_flight)), 3),
    Column("SHARE", 3, _of_device(_share), 7),
    Column("TRAP/s", 3, _of_guest(lambda guest: figure(guest.traps_per_s)), 6),
    Column("INT/s", 4, _of_guest(lambda guest: figure(guest.interrupts_per_s)), 6),
    Column("MSG/s", 5, _of_guest(lambda guest: figure(guest.messages_per_s)), 6),
    Column("UNACK", 11, _of_guest(lambda guest: str(guest.unacknowledged)), 5),
    Column("HELD", 10, _of_device(lambda device: str(device.throttled)), 5),
    Column("CPU", 8, _of_guest(lambda guest: percent(guest.cpu)), 4),
    Column("RSS", 9, _of_guest(lambda guest: _memory(guest.rss_bytes)), 5),
    Column("RST", 7, _of_guest(lambda guest: str(guest.restarts)), 3),
)


def _moved(device: DeviceRow) -> float | None:
    """Bytes a second, both ways."""
    known = [rate for rate in (device.bytes_in_per_s, device.bytes_out_per_s) if rate is not None]
    return sum(known) if known else None


def _of_controller(cell: Callable[[ControllerRow], str]) -> Callable[[ControllerLine], str]:
    return lambda line: cell(line.controller) if line.pair is None else ""


def _either(
    controller: Callable[[ControllerRow], str], pair: Callable[[PairRow], str]
) -> Callable[[ControllerLine], str]:
    return lambda line: controller(line.controller) if line.pair is None else pair(line.pair)


def _faults(controller: ControllerRow) -> str:
    """What went wrong so far."""
    return " ".join(f"{key}={value}" for key, value in controller.faults.items() if value)


_CONTROLLER: Final[tuple[Column[ControllerLine], ...]] = (
    Column("CONTROLLER", 0, _either(lambda row: row.name, lambda pair: f"  < {pair.hypervisor}"), left=True),
    Column("KIND", 5, _of_controller(lambda row: row.kind), left=True),
    Column(
        "STATE", 1, _either(lambda row: row.state, lambda pair: "connected" if pair.connected else "lost"), left=True
    ),
    Column("HOST", 4, _of_controller(lambda row: row.host or "-"), left=True),
    Column("DRIVER", 6, _of_controller(lambda row: row.driver), left=True),
    Column("CMD/s", 0, _either(lambda row: figure(row.commands_per_s), lambda pair: figure(pair.commands_per_s)), 6),
    Column("SYNC/s", 3, _of_controller(lambda row: figure(row.syncs_per_s)), 6),
    Column("FLY", 1, _either(lambda row: str(row.in_flight), lambda pair: f"{pair.in_flight}/{pair.credits}"), 7),
    Column("WAIT", 2, _either(lambda row: str(row.waiting), lambda pair: str(pair.waiting)), 4),
    Column("SHARE", 5, _either(lambda _: "", lambda pair: percent(pair.share)), 5),
    Column("WEIGHT", 6, _either(lambda _: "", lambda pair: str(pair.weight)), 6),
    Column("QUEUED", 7, _either(lambda _: "", lambda pair: str(pair.queued)), 6),
    Column("CPU", 3, _of_controller(lambda row: percent(row.cpu)), 4),
    Column("RSS", 4, _of_controller(lambda row: _memory(row.rss_bytes)), 5),
    Column("RST", 4, _of_controller(lambda row: str(row.restarts)), 3),
    Column("AGAIN", 7, _either(lambda _: "", lambda pair: str(pair.resubmitted)), 5),
    Column("FAULTS", 8, _of_controller(_faults), left=True),
)

_HYPERVISOR: Final[tuple[Column[HypervisorRow], ...]] = (
    Column("HYPERVISOR", 0, lambda row: row.name, left=True),
    Column("STATE", 1, lambda row: row.state, left=True),
    Column("HOST", 2, lambda row: row.host or "-", left=True),
    Column("GUESTS", 1, lambda row: str(row.guests), 6),
    Column("TRAP/s", 0, lambda row: figure(row.traps_per_s), 6),
    Column("INT/s", 1, lambda row: figure(row.interrupts_per_s), 6),
    Column("MSG/s", 1, lambda row: figure(row.messages_per_s), 6),
    Column("CPU", 2, lambda row: percent(row.cpu), 4),
    Column("RSS", 3, lambda row: _memory(row.rss_bytes), 5),
    Column("RST", 3, lambda row: str(row.restarts), 3),
)

_DOMAIN: Final[tuple[Column[ProcessRow], ...]] = (
    Column("DRIVER DOMAIN", 0, lambda row: row.name, left=True),
    Column("STATE", 1, lambda row: row.state, left=True),
    Column("HOST", 2, lambda row: row.host or "-", left=True),
    Column("CPU", 2, lambda row: percent(row.cpu), 4),
    Column("RSS", 3, lambda row: _memory(row.rss_bytes), 5),
    Column("RST", 3, lambda row: str(row.restarts), 3),
)


def draw(sample: Sample, width: int, *, sort: SortKey = "name", height: int = 0, hint: str = "") -> list[Line]:
    """Draw a sample.

    Args:
        sample: What to draw.
        width: Columns of the terminal; no line is longer.
        sort: Order of guests.
        height: Lines of the terminal; guests that do not fit are counted, then the end is cut. 0 for any number.
        hint: What keys do, at the end of the first line.
    """
    hidden = _hidden(sample)
    guests = _table(_GUEST, guest_lines(sort_guests(sample.guests, sort)), width, hidden, lambda line: line.guest.state)
    pairs = [line for row in sample.controllers for line in _controller_lines(row)]
    tables = [
        _table(_CONTROLLER, pairs, width, hidden, lambda line: line.controller.state),
        _table(_HYPERVISOR, sample.hypervisors, width, hidden, lambda row: row.state),
        _table(_DOMAIN, sample.driver_domains, width, hidden, lambda row: row.state),
    ]
    rest = [line for table in tables if len(table) > 1 for line in (Line(""), *table)]
    rest += [Line(printable(problem)[:width], "red") for problem in sample.problems.values()]
    clock = time.strftime("%H:%M:%S", time.localtime(sample.at_ns // 1_000_000_000))
    head = Line(f"{sample.topology}  {clock}  by {sort}  {hint}".rstrip()[:width], "dim")
    room = max(height - len(rest) - 2, _LEAST_GUESTS) if height else len(guests)
    lines = [head, *_clip(guests, room), *rest]
    return lines[:height] if height else lines


def _table(
    columns: Sequence[Column[Row]], rows: Sequence[Row], width: int, hidden: Container[str], state: Callable[[Row], str]
) -> list[Line]:
    """A table without the columns that say the same everywhere."""
    shown = [column for column in columns if column.title not in hidden]
    return lay_out(shown, rows, width, lambda row: "" if state(row) in _GOOD else "red")


def _hidden(sample: Sample) -> set[str]:
    """Titles of columns that tell nothing: hosts where there are none, drivers where all are native."""
    native = all(row.driver == NATIVE for row in sample.controllers)
    homeless = all(row.host is None for row in sample.hypervisors)
    return {title for title, useless in (("HOST", homeless), ("DRIVER", native)) if useless}


def _controller_lines(controller: ControllerRow) -> list[ControllerLine]:
    return [ControllerLine(controller, None), *(ControllerLine(controller, pair) for pair in controller.pairs)]


def _clip(lines: list[Line], room: int) -> list[Line]:
    """Leave out what does not fit, and say how much that is."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], Line(f"... {len(lines) - room + 1} more lines", "dim")]
