"""Shares of a controller beside what weights entitle to."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.cli.top_rows import DeviceRow, GuestRow, share_out
from iovirt_dist.topology.specs import ControllerSpec
from tests.unit.cli.top_support import topology

TWO_HYPERVISORS = """
[hypervisor.hv0]
[hypervisor.hv1]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
arbitration = { hv0 = 3 }
"""


def device(iops: float | None, *, weight: int | None = 1, moved: float = 0, waiting: int = 0) -> DeviceRow:
    """A disk at disk0."""
    return DeviceRow(
        device="disk",
        controller="disk0",
        requests_per_s=iops,
        bytes_in_per_s=moved,
        bytes_out_per_s=None,
        waiting=waiting,
        in_flight=0,
        weight=weight,
    )


def guest(name: str, disk: DeviceRow, hypervisor: str = "hv0") -> GuestRow:
    """A guest with one disk."""
    return GuestRow(
        name=name,
        host=None,
        state="running",
        reason="",
        restarts=0,
        cpu=None,
        rss_bytes=None,
        kind="script",
        level="driver",
        hypervisor=hypervisor,
        traps_per_s=None,
        interrupts_per_s=None,
        messages_per_s=None,
        unacknowledged=0,
        devices=(disk,),
    )


def shares(*guests: GuestRow, controllers: tuple[ControllerSpec, ...] = ()) -> list[tuple[float | None, float | None]]:
    """Share and entitlement of each guest's disk."""
    return [(row.devices[0].share, row.devices[0].entitled) for row in share_out(guests, controllers)]


def test_shares_are_of_what_requests_cost() -> None:
    """Small requests cost 4 KiB, larger ones what they move."""
    assert shares(guest("a", device(100, moved=100 * 512)), guest("b", device(100, moved=100 * 12288))) == [
        (0.25, 0.5),
        (0.75, 0.5),
    ]


def test_weights_entitle_those_that_compete() -> None:
    """A guest that wants nothing leaves its part to the others; one that only waits competes."""
    rows = (device(300, weight=1), device(0, weight=2, waiting=9), device(0, weight=5))
    assert shares(*(guest(str(at), row) for at, row in enumerate(rows))) == [(1.0, 0.333), (0.0, 0.667), (0.0, None)]


def test_arbitration_weighs_hypervisors_before_guests(tmp_path: Path) -> None:
    """Three turns of four for hv0, which two guests share."""
    controllers = tuple(topology(tmp_path, TWO_HYPERVISORS).controllers.values())
    rows = (guest("a", device(10)), guest("b", device(10)), guest("c", device(20), "hv1"))
    assert shares(*rows, controllers=controllers) == [(0.25, 0.375), (0.25, 0.375), (0.5, 0.25)]


def test_scheduler_without_weights_entitles_nobody() -> None:
    """First come, first served."""
    assert shares(guest("a", device(10, weight=None)), guest("b", device(30, weight=None))) == [
        (0.25, None),
        (0.75, None),
    ]


def test_nothing_is_shared_while_nothing_moves() -> None:
    """No division by zero, and no 0 %."""
    assert shares(guest("a", device(None)), guest("b", device(0))) == [(None, None), (None, None)]
