"""Results as JSON, and their ratios."""

from __future__ import annotations

import json

from iovirt_dist.compare.counts import Counts
from iovirt_dist.compare.job import Job
from iovirt_dist.compare.knowledge import Known
from iovirt_dist.compare.result import Drivers, RowResult, comparison_json, moved_bytes, ratios, traps_per_mib

JOB = Job(512)
DRIVERS = Drivers(guest="virtio", virtual_device="VirtioBlk", host="DiskDriver", controller="disk0")


def row(traps: int, seconds: float, problems: tuple[str, ...] = ()) -> RowResult:
    """A row with so many traps."""
    counts = Counts({"port_in": traps, "port_out": 0}, traps, 10 * traps, 2, 100, 1, 1, 1)
    return RowResult(
        counts=counts,
        total=counts,
        seconds=seconds,
        sha256="ab",
        calls={"read": 8},
        knows={"device": Known(2, 2, 0, 2, 2)},
        drivers=DRIVERS,
        problems=problems,
    )


def test_result_traps_are_per_mib_of_what_moves() -> None:
    """Half a MiB is read, and again half of it written."""
    writing = Job(512, write_percent=50)

    assert moved_bytes(writing) == 3 << 18
    assert traps_per_mib(row(30, 1), writing) == 40


def test_ratios_compare_with_the_driver_level() -> None:
    """Rows of no traps are no division."""
    results = {"operation": row(1000, 8.0), "driver": row(10, 0.5), "syscall": row(0, 0.25)}

    assert ratios(results) == {
        "operation/driver": {"traps": 100.0, "messages": 83.5, "wire_bytes": 50.5, "seconds": 16.0},
        "syscall/driver": {"traps": 0.0, "messages": 0.17, "wire_bytes": 0.5, "seconds": 0.5},
    }
    assert ratios({"operation": row(1, 1)}) == {}
    assert ratios({"operation": row(5, 1), "driver": row(0, 0)})["operation/driver"]["traps"] == 0


def test_comparison_json_has_what_the_rows_have() -> None:
    """The keys that others read."""
    text = json.dumps(comparison_json({"driver": row(10, 0.5, ("broken",))}, JOB, "cd"))

    told = json.loads(text)
    level = told["levels"]["driver"]
    assert {"traps", "messages", "wire_bytes", "interrupts", "seconds", "mib_per_s", "sha256", "knows"} <= set(level)
    assert {"abi_routines", "guest_driver", "host_driver", "traps_per_mib"} <= set(level)
    assert (level["traps"], level["messages"], level["wire_bytes"], level["mib_per_s"]) == (10, 12, 200, 1.0)
    assert level["knows"]["device"]["verdict"] == "known"
    assert (told["ok"], told["job"]["sha256"], told["job"]["requests"]) == (False, "cd", 8)
