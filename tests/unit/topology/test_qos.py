"""Schedulers and quality of service in a topology."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.platform.qos import DEFAULT_QOS, Priority, Qos, SchedulerKind
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology import BlockSpec, Topology
from iovirt_dist.topology.qos import change_qos, describe_qos

TEXT = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
{scheduler}
[controller.rng0]
kind = "rng"
[guest.g]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices.disk = "disk0"
{guest}
"""


def load(folder: Path, guest: str = "", scheduler: str = "") -> Topology:
    """A topology with one guest that has a disk."""
    return write_topology(TEXT.format(guest=guest, scheduler=scheduler), folder, {})


def test_guests_have_equal_shares_without_limits_by_default(tmp_path: Path) -> None:
    """Of the devices that they have; by deficit round robin."""
    topology = load(tmp_path)
    disk = topology.controller("disk0")

    assert isinstance(disk, BlockSpec)
    assert (disk.scheduler, disk.depth) == (SchedulerKind.DRR, 32)
    assert [guest.qos for guest in topology.guests.values()] == [{"disk": DEFAULT_QOS}]


def test_all_keys_are_understood(tmp_path: Path) -> None:
    """In words of the topology, with units."""
    keys = 'iops = 1000, bandwidth = "10MiB", burst = "100ms"'
    shares = {
        "wfq": f"weight = 2, {keys}",
        "priority": f'priority = "urgent", {keys}',
        "deadline": f'latency = "5ms", {keys}',
        "fifo": 'iops = 1, burst = "1s"',
    }
    found = {}
    for scheduler, share in shares.items():
        topology = load(tmp_path, f"qos.disk = {{{share}}}", f'scheduler = "{scheduler}"\ndepth = 8')
        found[scheduler] = next(iter(topology.guests.values())).qos["disk"]

    limits = DEFAULT_QOS._replace(iops=1000, bandwidth=10 << 20, burst_ns=100_000_000)
    assert found == {
        "wfq": limits._replace(weight=2),
        "priority": limits._replace(priority=Priority.URGENT),
        "deadline": limits._replace(latency_ns=5_000_000),
        "fifo": DEFAULT_QOS._replace(iops=1, burst_ns=1_000_000_000),
    }


@pytest.mark.parametrize(
    ("guest", "scheduler", "message"),
    [
        ("qos.disk.weight = 0", "", "guest.g.qos.disk.weight"),
        ("qos.disk.weight = 1001", "", "expected an integer from 1 to 1000, got 1001"),
        ('qos.disk.weight = "2"', "", 'expected an integer from 1 to 1000, got "2"'),
        ("qos.disk.iops = -1", "", "expected an integer from 0 to"),
        ('qos.disk.bandwidth = "10MB"', "", "expected a size"),
        ('qos.disk.bandwidth = "2TiB"', "", "expected at most 1TiB a second"),
        ('qos.disk.burst = "1us"', "", "expected 1ms to 60s"),
        ('qos.disk.priority = "best"', 'scheduler = "priority"', 'expected "urgent", "high", "medium" or "low"'),
        ('qos.disk.priority = "high"', "", 'scheduler "drr" does not look at priority'),
        ("qos.disk.weight = 2", 'scheduler = "fifo"', 'scheduler "fifo" does not look at weight'),
        ('qos.disk.latency = "5ms"', "", 'scheduler = "deadline" does'),
        ("qos.rng.iops = 5", "", "the guest has no device 'rng'"),
        ("qos.dsk.iops = 5", "", "did you mean 'disk'?"),
        ("qos.disk.iosp = 5", "", "did you mean 'iops'?"),
        ("", 'scheduler = "cfq"', 'expected "fifo", "drr", "wfq", "priority" or "deadline", got "cfq"'),
        ("", "depth = 0", "expected an integer from 1 to 1024, got 0"),
    ],
)
def test_wrong_key_is_named_with_what_to_do(tmp_path: Path, guest: str, scheduler: str, message: str) -> None:
    """File, key, and what is expected."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, guest, scheduler)

    assert message in str(error.value)


def test_change_takes_limits_away() -> None:
    """With a word or a nought."""
    limited = Qos(iops=5, bandwidth=5)

    changed = change_qos(limited, "iops", "none", SchedulerKind.FIFO, "x")
    changed = change_qos(changed, "bandwidth", "0", SchedulerKind.FIFO, "x")

    assert changed == Qos()
    with pytest.raises(ConfigError, match="no setting 'iosp'"):
        change_qos(limited, "iosp", "5", SchedulerKind.FIFO, "x")


def test_description_says_what_matters_and_no_more() -> None:
    """In words that could be written into a topology."""
    qos = Qos(2, Priority.HIGH, 5_000_000, 1000, 10 << 20, 20_000_000)

    assert describe_qos(Qos(), SchedulerKind.FIFO) == {}
    assert describe_qos(Qos(weight=3), None) == {"weight": 3}
    assert describe_qos(Qos(weight=3), SchedulerKind.DRR) == {"weight": 3}
    assert describe_qos(qos, SchedulerKind.PRIORITY) == {
        "priority": "high",
        "iops": 1000,
        "bandwidth": "10MiB",
        "burst": "20ms",
    }
    assert describe_qos(Qos(latency_ns=1500), SchedulerKind.DEADLINE) == {"latency": "1500ns"}


@pytest.mark.parametrize(
    "change", [{"weight": 0}, {"latency_ns": 0}, {"iops": -1}, {"bandwidth": 1 << 41}, {"burst_ns": -5}]
)
def test_numbers_that_nothing_can_work_with_are_out_of_range(change: dict[str, int]) -> None:
    """The default is not."""
    assert DEFAULT_QOS.in_range
    assert not DEFAULT_QOS._replace(**change).in_range  # type: ignore[arg-type]  # mypy types keywords one by one
