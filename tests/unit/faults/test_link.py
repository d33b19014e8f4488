"""Declared faults are checked."""

from __future__ import annotations

import math
from random import Random

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.faults.link import Cut, Faults
from iovirt_dist.transport.memory import Delivery


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("delay_ns", (-1, 0)),
        ("delay_ns", (2, 1)),
        ("delay_ns", (0, 1 << 62)),
        ("loss", -0.1),
        ("loss", 1.1),
        ("loss", math.nan),
        ("duplicate", 2.0),
        ("reorder", -1.0),
        ("reorder_ns", -1),
    ],
)
def test_faults_outside_their_range_are_refused(key: str, value: object) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError, match=key):
        Faults(**{key: value})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(("from_ns", "until_ns"), [(-1, 5), (5, 5), (6, 5)])
def test_cut_that_ends_before_it_begins_is_refused(from_ns: int, until_ns: int) -> None:
    """A cut takes time."""
    with pytest.raises(ConfigError, match="cut"):
        Cut(from_ns, until_ns)


def test_no_faults_deliver_once_and_now() -> None:
    """The default is a perfect link."""
    assert list(Faults().deliveries(7, Random(1))) == [Delivery(7, in_order=True)]


def test_one_fate_does_not_shift_the_next() -> None:
    """Each message draws the same count of numbers, so more loss keeps the delays of what survives."""
    calm, lossy = Faults(delay_ns=(0, 1000)), Faults(delay_ns=(0, 1000), loss=0.5)
    one, other = Random(3), Random(3)
    pairs = [(list(calm.deliveries(0, one)), list(lossy.deliveries(0, other))) for _ in range(50)]
    assert all(lossy_arrivals in ([], calm_arrivals) for calm_arrivals, lossy_arrivals in pairs)
