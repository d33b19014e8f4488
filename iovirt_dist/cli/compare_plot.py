"""The comparison as a picture: four bar charts on logarithmic scales. Needs the extra ``plot`` (matplotlib)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from iovirt_dist.compare.job import Job
from iovirt_dist.compare.result import MIB, RowResult, moved_bytes, seconds_per_mib, traps_per_mib
from iovirt_dist.errors import ConfigError

SUFFIXES: Final = (".png", ".svg", ".pdf")

_WHERE: Final = "iovirt compare: --plot"


def check_plot(file: Path) -> None:
    """Say before minutes of work that a plot cannot be drawn.

    Raises:
        ConfigError: matplotlib is not installed, there is no such folder, or the format is unknown.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("matplotlib is not installed", _WHERE, "install the extra: pip install 'iovirt-dist[plot]'")
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"cannot draw '{file.name}'", _WHERE, f"name it with one of {' '.join(SUFFIXES)}")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {file.absolute().parent}", _WHERE)


def draw_plot(file: Path, results: Mapping[str, RowResult], job: Job) -> None:
    """Draw traps, messages, bytes and seconds, each for one MiB, of each level.

    Args:
        file: Where; its suffix says the format.
        results: By row.
        job: What they did.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    mib = moved_bytes(job) / MIB
    charts: dict[str, Callable[[RowResult], float]] = {
        "traps per MiB": lambda row: traps_per_mib(row, job),
        "messages per MiB": lambda row: row.counts.messages / mib,
        "wire bytes per MiB": lambda row: row.counts.wire_bytes / mib,
        "seconds per MiB": lambda row: seconds_per_mib(row, job),
    }
    figure = Figure(figsize=(9, 6), layout="constrained")
    figure.suptitle(f"one job, {job.kib} KiB in requests of {job.block_bytes} bytes")
    for axes, (title, value) in zip(figure.subplots(2, 2).flat, charts.items(), strict=True):
        names = [name.replace("_", "\n") for name in results]
        bars = axes.bar(names, [value(row) for row in results.values()])
        axes.bar_label(bars, fmt="%.3g")
        axes.set_yscale("log")
        axes.set_title(title)
        axes.margins(y=0.2)
    figure.savefig(file)
