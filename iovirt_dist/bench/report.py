"""What a benchmark found: both sides, the ratio, the target, the verdict; as a table and as one object."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from iovirt_dist.bench.sampling import Figures

WIDTH = 80
PACKAGES = ("iovirt-dist", "pyzmq", "msgpack", "msgspec", "unicorn", "uvloop")


class Target(NamedTuple):
    """What a result must reach.

    Attributes:
        limit: For the ratio, where there is another side, else for the value itself.
        at_most: Whether it is a maximum; else it is a minimum.
        of_value: It is for the value even where there is another side.
    """

    limit: float
    at_most: bool = True
    of_value: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement.

    Attributes:
        key: Its name in the object.
        title: Its name in the table.
        unit: Of both sides.
        ours: What our side cost or reached; None if skipped.
        base: The same of the bare side; None where the target is for the value itself.
        base_name: What the bare side is.
        target: What must be reached; None for figures that are told and not judged.
        skipped: Why nothing was measured, empty if something was.
        details: What the figures were made of, as JSON values.
    """

    key: str
    title: str
    unit: str
    target: Target | None
    ours: Figures | None = None
    base: Figures | None = None
    base_name: str = ""
    skipped: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Our median over the bare one."""
        return self.ours.p50 / self.base.p50 if self.ours and self.base else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None if skipped, or if there is none."""
        if self.ours is None or self.target is None:
            return None
        ratio = self.ratio
        return self.target.met(self.ours.p50 if ratio is None or self.target.of_value else ratio)

    def as_object(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        ratio = self.ratio
        target = self.target._asdict() if self.target is not None else None
        return {**asdict(self), "target": target, "ratio": ratio, "met": self.met}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """What it was measured with; a package that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"libzmq": zmq.zmq_version()}


def as_object(report: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """The whole report, as ``--json`` prints it: machine, versions, and for each part its results by key."""
    parts = {part: {result.key: result.as_object() for result in results} for part, results in report.items()}
    return {"machine": machine(), "versions": versions(), **parts}


def print_report(report: Mapping[str, Sequence[Result]]) -> None:
    """Print the table, 80 columns wide whatever the terminal."""
    console = Console(width=WIDTH, highlight=False)
    here = machine()
    console.print(f"{here['cpu']}, {here['cores']} cores, Linux {here['kernel']}, load {here['load']}")
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, caption_justify="left")
    table.add_column("median")
    for column in ("ours", "bare", "ratio", "target", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for results in report.values():
        for result in results:
            table.add_row(result.title, *_cells(result))
        table.add_section()
    console.print(table)
    for part, results in report.items():
        for result in results:
            if result.skipped:
                console.print(f"{part} {result.key}: skipped: {result.skipped}")


def _cells(result: Result) -> tuple[str, str, str, str, str]:
    """The columns behind the title."""
    if result.ours is None:
        return "-", "-", "-", _target(result), "skipped"
    ratio = result.ratio
    return (
        _quantity(result.ours.p50, result.unit),
        _quantity(result.base.p50, result.unit) if result.base else "-",
        "-" if ratio is None else f"{ratio:.2f}",
        _target(result),
        {True: "met", False: "missed", None: "-"}[result.met],
    )


def _target(result: Result) -> str:
    target = result.target
    if target is None:
        return "-"
    sign = "<=" if target.at_most else ">="
    if result.base_name and not target.of_value:
        return f"{sign} {target.limit:.2f}"
    return f"{sign} {_quantity(target.limit, result.unit)}"


def _quantity(value: float, unit: str) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f} k{unit}"
    return f"{value:.0f} {unit}".rstrip() if value >= 100 else f"{value:.2f} {unit}".rstrip()
