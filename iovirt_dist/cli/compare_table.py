"""The comparison as a table of 80 columns: a column for each level, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from iovirt_dist.cli.output import print_table
from iovirt_dist.compare.job import Job
from iovirt_dist.compare.knowledge import ASPECTS, KNOWN, LOST, PARTLY, RECONSTRUCTED, Known
from iovirt_dist.compare.result import MIB, RowResult, moved_bytes, ratios, traps_per_mib

_HEADINGS: Final = {
    "operation": "operation",
    "operation_string": "op. (string)",
    "driver": "driver",
    "syscall": "syscall",
}
_LETTERS: Final = dict(zip(ASPECTS, "DRSBPFO", strict=True))

LEGEND: Final = """\
knows, of one request: D device, R read or write, S sectors, B where a request
begins and ends, P process, F file, O offset in it. Capital: known where it was
intercepted; small: reconstructed by the virtual device; ?: partly; -: lost.
All counts are those of the job alone; messages and bytes are both directions,
guest - hypervisor and hypervisor - disk controller."""


def marks(knows: Mapping[str, Known]) -> str:
    """One character for each aspect; see `LEGEND`."""
    signs = {LOST: lambda _: "-", PARTLY: lambda _: "?", RECONSTRUCTED: str.lower, KNOWN: str.upper}
    return "".join(signs[knows[aspect].verdict](_LETTERS[aspect]) for aspect in ASPECTS)


def table_rows(results: Mapping[str, RowResult], job: Job) -> list[tuple[str, ...]]:
    """The cells: a name, then a value for each level."""
    mib = moved_bytes(job) / MIB
    cells: dict[str, Callable[[RowResult], str]] = {
        "traps per MiB": lambda row: f"{traps_per_mib(row, job):,.0f}",
        "traps": lambda row: f"{row.counts.all_traps:,}",
        "messages": lambda row: f"{row.counts.messages:,}",
        "wire bytes": lambda row: f"{row.counts.wire_bytes:,}",
        "interrupts": lambda row: f"{row.counts.interrupts:,}",
        "seconds": lambda row: f"{row.seconds:,.3f}",
        "MiB/s": lambda row: f"{mib / row.seconds:.3g}" if row.seconds else "-",
        "knows": lambda row: marks(row.knows),
        "ABI routines": lambda row: str(row.drivers.abi_routines),
        "ABI code lines": lambda row: f"{row.drivers.abi_lines:,}",
        "guest's driver": lambda row: row.drivers.guest,
        "virtual device": lambda row: row.drivers.virtual_device.removesuffix("Interception"),
        "host's driver": lambda row: row.drivers.host,
        "sha256": lambda row: row.sha256[:12] or "none",
    }
    return [(name, *(cell(row) for row in results.values())) for name, cell in cells.items()]


def ratio_rows(results: Mapping[str, RowResult]) -> list[tuple[str, ...]]:
    """How many times as much as the driver level each other one needs: a name, then traps, messages, bytes, time."""
    return [
        (
            _HEADINGS[name.partition("/")[0]],
            *(_times(ratio[key]) for key in ("traps", "messages", "wire_bytes", "seconds")),
        )
        for name, ratio in ratios(results).items()
    ]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} x" if ratio >= 10 else f"{ratio:.2g} x"


def print_comparison(results: Mapping[str, RowResult], job: Job) -> None:
    """Print table, legend and ratios on stdout."""
    writes = f", {job.write_percent} % of them written back" if job.write_percent else ""
    print(f"job: {job.kib} KiB in requests of {job.block_bytes:,} bytes{writes}\n")
    print_table(("", *(_HEADINGS[name] for name in results)), table_rows(results, job))
    print(f"\n{LEGEND}")
    if ratio := ratio_rows(results):
        print()
        print_table(("against the driver level", "traps", "messages", "wire bytes", "time"), ratio)
