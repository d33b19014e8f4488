"""Rows of ``iovirt top`` from what processes say."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.cli.top_rows import ControllerRow, DeviceRow, HypervisorRow, PairRow, ProcessRow
from tests.unit.cli.top_support import HOSTS, TEXT, block, hypervisor, sample_of, status, topology


def test_guest_has_rates_as_its_hypervisor_counts(tmp_path: Path) -> None:
    """Traps of all kinds, messages of both directions."""
    (guest,) = sample_of(topology(tmp_path), [hypervisor(0)], [hypervisor(2)]).guests

    assert (guest.name, guest.kind, guest.level, guest.hypervisor, guest.host) == ("a", "script", "driver", "hv0", None)
    assert (guest.traps_per_s, guest.interrupts_per_s, guest.messages_per_s) == (20.0, 10.0, 20.0)
    assert (guest.unacknowledged, guest.requests_per_s, guest.waiting) == (2, 10.0, 3)
    assert guest.bytes_per_s == 10 << 20


def test_device_has_rates_queue_and_share(tmp_path: Path) -> None:
    """Alone at its controller, it has all of it."""
    (guest,) = sample_of(topology(tmp_path), [hypervisor(0)], [hypervisor(2)]).guests

    assert guest.devices[0] == DeviceRow(
        device="disk",
        controller="disk0",
        requests_per_s=10.0,
        bytes_in_per_s=10 << 20,
        bytes_out_per_s=0.0,
        waiting=3,
        in_flight=4,
        weight=1,
        share=1.0,
        entitled=1.0,
        throttled=5,
    )
    assert guest.devices[1].share is None


def test_controller_has_its_own_rates_and_each_pairs(tmp_path: Path) -> None:
    """What it says itself, and what hypervisors say of their queue pairs."""
    sample = sample_of(topology(tmp_path), [hypervisor(0), block(0)], [hypervisor(2), block(2)])

    assert sample.controllers == (
        ControllerRow(
            name="disk0",
            host=None,
            state="running",
            reason="",
            restarts=0,
            cpu=None,
            rss_bytes=33 << 20,
            kind="block",
            driver="native",
            commands_per_s=100.0,
            syncs_per_s=2.0,
            in_flight=4,
            waiting=3,
            faults={"strays": 6, "medium_errors": 0},
            pairs=(
                PairRow(
                    hypervisor="hv0",
                    connected=True,
                    commands_per_s=10.0,
                    in_flight=4,
                    credits=64,
                    waiting=3,
                    queued=0,
                    weight=1,
                    share=None,
                    resubmitted=1,
                ),
            ),
        ),
        sample.controllers[1],
    )


def test_hypervisor_has_the_sums_over_its_guests(tmp_path: Path) -> None:
    """And half a processor."""
    sample = sample_of(topology(tmp_path), [hypervisor(0)], [hypervisor(2)])

    assert sample.hypervisors == (
        HypervisorRow(
            name="hv0",
            host=None,
            state="running",
            reason="",
            restarts=0,
            cpu=0.5,
            rss_bytes=None,
            guests=1,
            traps_per_s=20.0,
            interrupts_per_s=10.0,
            messages_per_s=20.0,
        ),
    )


def test_topology_that_is_down_has_rows_without_rates(tmp_path: Path) -> None:
    """Everything that there should be."""
    sample = sample_of(topology(tmp_path), [])

    (guest,) = sample.guests
    assert (guest.state, guest.traps_per_s, guest.devices) == ("down", None, ())
    assert [(row.name, row.state, row.commands_per_s) for row in sample.controllers] == [
        ("disk0", "down", None),
        ("tty0", "down", None),
    ]
    assert (sample.hypervisors[0].guests, sample.hypervisors[0].traps_per_s) == (0, None)


def test_malformed_statuses_have_rows_without_rates(tmp_path: Path) -> None:
    """Whatever stands in a file that anybody may have written."""
    bad = {"guests": {"a": {"devices": {"disk": 7, "rng": {"controller": 1, "requests": "many"}}, "traps": [1]}}}
    disk = status("disk0", "block", 0, commands="x", rss_bytes=-1)
    wrong = [status("hv0", "hypervisor", at_s, **bad, controllers=[], cpu_ns=None) for at_s in (0, 1)]

    sample = sample_of(topology(tmp_path), [wrong[0], disk], [wrong[1], disk])

    (guest,) = sample.guests
    assert guest.traps_per_s is None
    assert [(row.device, row.controller, row.requests_per_s) for row in guest.devices] == [
        ("disk", "", None),
        ("rng", "", None),
    ]
    assert (sample.controllers[0].rss_bytes, sample.controllers[0].pairs) == (None, ())


def test_queue_pairs_have_shares_as_the_controller_counts(tmp_path: Path) -> None:
    """Also that of a hypervisor which tells nothing: its host may be out of reach."""
    known = topology(tmp_path, TEXT + "[hypervisor.hv1]\n")
    before, after = (
        status(
            "disk0",
            "block",
            at_s,
            shares={
                "hv0": {"weight": 3, "open": True, "commands": 3 * n, "bytes": 0, "waiting": 2, "in_flight": 9},
                "hv1": {"weight": 1, "open": True, "commands": 0, "bytes": 4096 * n, "waiting": 1, "in_flight": 7},
                "gone": "x",
            },
        )
        for at_s, n in ((0.0, 0), (1.0, 100))
    )

    pairs = sample_of(known, [hypervisor(0), before], [hypervisor(1), after]).controllers[0].pairs

    assert [(pair.hypervisor, pair.connected, pair.weight, pair.share) for pair in pairs] == [
        ("hv0", True, 3, 0.75),
        ("hv1", True, 1, 0.25),
    ]
    assert [(pair.in_flight, pair.queued, pair.commands_per_s) for pair in pairs] == [(4, 2, 10.0), (7, 1, None)]


def test_guest_that_came_between_samples_has_rates_at_once(tmp_path: Path) -> None:
    """Its counts began at 0 when it came."""
    empty = status("hv0", "hypervisor", 0, guests={})

    (guest,) = sample_of(topology(tmp_path), [empty], [hypervisor(2)]).guests

    assert guest.traps_per_s == 20.0


def test_device_of_a_driver_domain_is_counted_there(tmp_path: Path) -> None:
    """The domain is the process; the device's counts are a part of what it says."""
    before, after = (
        status("dom0", "driver_domain", at_s, devices={"disk0": {"commands": int(at_s * 50), "syncs": 0}})
        for at_s in (0.0, 1.0)
    )

    sample = sample_of(topology(tmp_path, HOSTS), [before], [after])

    (controller,) = sample.controllers
    assert (controller.name, controller.driver, controller.host) == ("disk0", "dom0", "a")
    assert (controller.state, controller.commands_per_s) == ("running", 50.0)
    assert [row.host for row in sample.hypervisors] == ["a", "b"]
    assert sample.driver_domains == (
        ProcessRow(name="dom0", host="a", state="running", reason="", restarts=0, cpu=None, rss_bytes=None),
    )
