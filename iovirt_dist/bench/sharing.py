"""A disk shared by many guests: total throughput, equal shares, and memory, as their number grows.

The same fleet grows from one guest to the largest number, and is measured at each; so all figures are of one run. Every
guest keeps `DEPTH` random reads of 4 KiB in flight, more than its share of what the controller is given at a time: it
is backlogged. Throughput is measured on the way up and again on the way down, as machines drift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from iovirt_dist.bench.fleet import MEMORY, Fleet, Member
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Figures, summarise
from iovirt_dist.errors import LocalError

DEPTH: Final = 64
BACKLOGGED: Final = Member({"depth": DEPTH})

_MIB: Final = 1 << 20
_JAIN_FROM: Final = 8
"""Fairness of fewer guests is told and has no target."""


class Steps(NamedTuple):
    """How much is measured.

    Attributes:
        guests: Numbers of guests, ascending; the first is for memory only if it is 1.
        windows: Windows at each number, each way.
        window_s: Length of a window.
    """

    guests: tuple[int, ...] = (1, 2, 8, 32)
    windows: int = 4
    window_s: float = 1.0


class Memory(NamedTuple):
    """Memory of a process, in bytes.

    Attributes:
        rss: Resident, what is shared with others included.
        pss: The same, shared pages divided among those that share them.
    """

    rss: int
    pss: int


def memory_of(pid: int) -> Memory:
    """Look at a process's memory (proc(5), /proc/PID/smaps_rollup).

    Raises:
        LocalError: It is gone, or not ours.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError as error:
        raise LocalError(f"cannot read its memory: {error.strerror}", f"process {pid}") from None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return Memory(kib["Rss"] << 10, kib["Pss"] << 10)


def jain_index(shares: Sequence[float]) -> float:
    """How equal shares are: 1 for equal ones, 1/n where one has all.

    R. Jain, D. Chiu and W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation in
    Shared Computer Systems", DEC-TR-301, 1984.
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


class Growth(NamedTuple):
    """What was found, by number of guests.

    Attributes:
        rates: Requests a second in all, of each window.
        shares: Requests of each guest in all windows on the way up, and then on the way down.
        guests: Memory of each guest.
        hypervisor: Memory of the hypervisor.
    """

    rates: dict[int, list[float]]
    shares: dict[int, list[list[int]]]
    guests: dict[int, list[Memory]]
    hypervisor: dict[int, Memory]


def measure_growth(steps: Steps, tell: Callable[[str], None]) -> Growth:
    """Let a fleet grow and shrink, and measure at each number of guests.

    Raises:
        LocalError: A process does not do what it should.
    """
    names = [f"g{number}" for number in range(1, steps.guests[-1] + 1)]
    found = Growth({}, {}, {}, {})
    with Fleet(dict.fromkeys(names, BACKLOGGED), steps.window_s) as fleet:
        running = 0
        for number in steps.guests:
            tell(f"sharing: {number} guests")
            fleet.start(*names[running:number])
            running = number
            _observe(fleet, names[:number], steps, found)
            found.guests[number] = [memory_of(fleet.status(name).pid) for name in names[:number]]
            found.hypervisor[number] = memory_of(fleet.status("hv0").pid)
        for number in reversed(steps.guests[:-1]):
            tell(f"sharing: {number} guests again")
            fleet.stop(*names[number:running])
            running = number
            _observe(fleet, names[:number], steps, found)
    return found


def _observe(fleet: Fleet, names: Sequence[str], steps: Steps, found: Growth) -> None:
    windows = fleet.windows(names, steps.windows)
    rates = [sum(done) / steps.window_s for done in zip(*windows.values(), strict=True)]
    found.rates.setdefault(len(names), []).extend(rates)
    found.shares.setdefault(len(names), []).append([sum(done) for done in windows.values()])


def scale_results(growth: Growth) -> list[Result]:
    """Total throughput with the most guests, beside the best of all numbers from two guests on."""
    figures = {number: _figures(rates) for number, rates in growth.rates.items()}
    most = max(figures)
    best = max((number for number in figures if number > 1 or most == 1), key=lambda number: figures[number].p50)
    return [
        Result(
            "throughput",
            f"4 KiB reads, {most} guests",
            "IOPS",
            Target(0.90, at_most=False),
            figures[most],
            figures[best],
            f"best: {best} guests",
            details={"iops": {str(number): round(figure.p50) for number, figure in figures.items()}},
        )
    ]


def equal_share_results(growth: Growth) -> list[Result]:
    """Jain's index of each number of guests that has a target; the worse of the two ways."""
    results = []
    for number, ways in growth.shares.items():
        if number < min(_JAIN_FROM, max(growth.shares)):
            continue
        index = min(jain_index(shares) for shares in ways)
        details = {"requests": ways}
        title = f"Jain index, {number} guests"
        results.append(
            Result(f"jain_{number}", title, "", Target(0.98, at_most=False), _figures([index]), details=details)
        )
    return results


def memory_results(growth: Growth) -> list[Result]:
    """The largest guest process, and what each guest adds to the hypervisor."""
    most = max(growth.guests)
    least = min(growth.guests)
    guests = growth.guests[most]
    grown = growth.hypervisor[most].rss - growth.hypervisor[least].rss
    hypervisor = {str(number): _in_mib(memory) for number, memory in growth.hypervisor.items()}
    rss = [memory.rss / _MIB for memory in guests]
    pss = [memory.pss / _MIB for memory in guests]
    per_guest = grown / _MIB / max(most - least, 1)
    details: Mapping[str, Any] = {"largest_rss_mib": max(rss), "guest_memory": MEMORY, "guests": most}
    return [
        Result("guest_rss", f"script guest, RSS ({MEMORY} RAM)", "MiB", Target(45.0), _figures(rss), details=details),
        Result("guest_pss", "script guest, PSS", "MiB", Target(45.0), _figures(pss), details={"guests": most}),
        Result(
            "hypervisor_per_guest",
            f"hypervisor per guest, {least} to {most}",
            "MiB",
            Target(1.0),
            _figures([per_guest]),
            details={"hypervisor": hypervisor},
        ),
    ]


def _in_mib(memory: Memory) -> dict[str, float]:
    return {"rss_mib": round(memory.rss / _MIB, 1), "pss_mib": round(memory.pss / _MIB, 1)}


def _figures(values: Sequence[float]) -> Figures:
    return summarise([[value] for value in values])
