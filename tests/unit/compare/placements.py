"""Results of a placement, made up."""

from __future__ import annotations

from iovirt_dist.compare.placement import LOADS, Code, KillResult, LoadResult, PlacementResult


def placement(driver: str, *, sha256: str = "5" * 64, problems: tuple[str, ...] = ()) -> PlacementResult:
    """A result with the longest names and large numbers."""
    cpu_us = {"hypervisor": 123.4, "devices": 123.4}
    load = LoadResult(10_000, 123_456, 12_345, 123_456, 0, 4.0, 3, cpu_us)
    native = driver == "native"
    devices = ("disk",) if native else ("disk", "console", "rng")
    pause_ms = {"disk": 12345.6, "rng": 0.4, "console": 12.5}
    return PlacementResult(
        loads={one.name: load for one in LOADS},
        kill=KillResult("disk0" if native else "dom0", devices, pause_ms, 64, 12_345, 0),
        device_processes=3 if native else 1,
        device_rss_bytes=103 << 20,
        all_processes=5 if native else 3,
        hypervisor_side=Code(("DiskDriver", "TerminalDriver", "EntropyDriver"), 202),
        device_side=Code(("BlockController", "BlockRunner", "ConsoleController", "ConsoleRunner"), 874),
        host_drivers=() if native else ("files", "pseudo-terminals", "getrandom"),
        sha256=sha256,
        problems=problems,
    )
