"""Rate limits: what a guest that could have more gets in each second, and after `iovirt set` while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from iovirt_dist.bench.fleet import Fleet, Member
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import summarise
from iovirt_dist.bench.sharing import DEPTH
from iovirt_dist.platform.qos import Qos

IOPS: Final = 1000
BANDWIDTH: Final = "8MiB"
BANDWIDTH_BLOCK: Final = "16KiB"
BANDWIDTH_IOPS: Final = 512
"""What `BANDWIDTH` is in blocks a second."""
SET_IOPS: Final = 2000
ERROR_PERCENT: Final = 5.0


class Span(NamedTuple):
    """How much is measured.

    Attributes:
        windows: For each limit.
        window_s: Length of a window.
    """

    windows: int = 5
    window_s: float = 1.0


def measure_rates(span: Span, tell: Callable[[str], None]) -> list[Result]:
    """Measure two limited guests one after the other, then change the limit of the first while it runs.

    The window in which a load begins is not counted, nor is that in which the limit changes.

    Raises:
        LocalError: A process does not do what it should.
    """
    members = {
        "ops": Member({"depth": DEPTH}, {"iops": IOPS}),
        "bytes": Member({"depth": DEPTH, "block": BANDWIDTH_BLOCK}, {"bandwidth": BANDWIDTH}),
    }
    found: dict[str, list[int]] = {}
    with Fleet(members, span.window_s) as fleet:
        tell(f"rates: iops = {IOPS}")
        fleet.start("ops")
        found["iops"] = fleet.windows(["ops"], span.windows)["ops"]
        tell(f"rates: iovirt set ops.disk iops={SET_IOPS}")
        fleet.set_qos("ops", Qos(iops=SET_IOPS))
        found["set"] = fleet.windows(["ops"], span.windows)["ops"]
        fleet.stop("ops")
        tell(f"rates: bandwidth = {BANDWIDTH}")
        fleet.start("bytes")
        found["bandwidth"] = fleet.windows(["bytes"], span.windows)["bytes"]
    return [
        _result("iops", f"iops = {IOPS}, worst window's error", IOPS, found["iops"], span),
        _result("set", f"set iops={SET_IOPS}, worst error", SET_IOPS, found["set"], span),
        _result("bandwidth", f"bandwidth {BANDWIDTH}, worst error", BANDWIDTH_IOPS, found["bandwidth"], span),
    ]


def worst_error_percent(counts: Sequence[int], wanted: float) -> float:
    """How far the window that is furthest off is from what is wanted, in per cent."""
    return max(100.0 * abs(count - wanted) / wanted for count in counts)


def _result(key: str, title: str, rate: int, counts: Sequence[int], span: Span) -> Result:
    error = worst_error_percent(counts, rate * span.window_s)
    details = {"wanted_per_s": rate, "windows": list(counts), "window_s": span.window_s}
    return Result(key, title, "%", Target(ERROR_PERCENT), summarise([[error]]), details=details)
