"""How samples look: order, width, height, and what is left out."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from iovirt_dist.cli.top_rows import GuestRow, Sample
from iovirt_dist.cli.top_table import SORT_KEYS, SortKey, draw, guest_lines, sort_guests
from tests.unit.cli.top_support import HOSTS, block, hypervisor, sample_of, status, topology


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """One guest, two controllers, one hypervisor, and their rates."""
    return sample_of(topology(tmp_path), [hypervisor(0), block(0)], [hypervisor(2), block(2)])


def words(text: str) -> list[str]:
    """The cells of a line without spaces in them."""
    return text.split()


def texts(sample: Sample, width: int, height: int = 0) -> list[str]:
    """The lines of a sample."""
    return [line.text for line in draw(sample, width, height=height)]


def crowd(sample: Sample, number: int) -> Sample:
    """As many guests like the first one."""
    return replace(sample, guests=tuple(replace(sample.guests[0], name=f"g{at}") for at in range(number)))


def test_80_columns_show_what_matters_most(sample: Sample) -> None:
    """Rates, queue, share, traps, interrupts and messages of a guest."""
    lines = texts(sample, 80)
    assert words(lines[1]) == words("GUEST STATE HV DEV IOPS MiB/s WAIT FLY SHARE TRAP/s INT/s MSG/s")
    assert words(lines[2]) == words("a down hv0 disk 10.0 10.0 3 4 100/100% 20.0 10.0 20.0")
    assert max(map(len, lines)) <= 80


def test_140_columns_show_everything(sample: Sample) -> None:
    """What a wide terminal is for."""
    lines = texts(sample, 140)
    assert words(lines[1]) == words(
        "GUEST KIND LEVEL STATE HV DEV IOPS MiB/s WAIT FLY SHARE TRAP/s INT/s MSG/s UNACK HELD CPU RSS RST"
    )
    assert words(lines[4]) == words(
        "CONTROLLER KIND STATE CMD/s SYNC/s FLY WAIT SHARE WEIGHT QUEUED CPU RSS RST AGAIN FAULTS"
    )
    assert words(lines[5]) == words("disk0 block running 100 2.0 4 3 - 33M 0 strays=6")
    assert words(lines[6]) == words("< hv0 connected 10.0 4/64 3 - 1 0 1")
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_shows_lines_as_they_are(sample: Sample, width: int) -> None:
    """Nothing wraps, and no line is taken for markup."""
    console = Console(width=width, force_terminal=True, file=io.StringIO())
    lines = draw(sample, width)
    with console.capture() as capture:
        console.print(Text("\n").join(Text(line.text, line.style) for line in lines))
    shown = Text.from_ansi(capture.get()).plain.splitlines()
    assert [line.rstrip() for line in shown] == [line.text for line in lines]


def test_hosts_and_driver_domains_are_shown_where_there_are_any(tmp_path: Path) -> None:
    """And not where they would say the same in every line."""
    domain = status("dom0", "driver_domain", 0, devices={"disk0": {"commands": 1}})
    lines = texts(sample_of(topology(tmp_path, HOSTS), [domain]), 120)
    assert words(lines[3]) == words(
        "CONTROLLER KIND STATE HOST DRIVER CMD/s SYNC/s FLY WAIT SHARE WEIGHT QUEUED CPU RSS RST AGAIN FAULTS"
    )
    assert words(lines[4])[:5] == ["disk0", "block", "running", "a", "dom0"]
    assert words(lines[-2]) == words("DRIVER DOMAIN STATE HOST CPU RSS RST")
    assert words(lines[-1]) == words("dom0 running a - - 0")


@pytest.mark.parametrize("height", [10, 17, 24])
def test_guests_that_do_not_fit_are_counted(sample: Sample, height: int) -> None:
    """Controllers and hypervisors stay in sight."""
    lines = texts(crowd(sample, 40), 80, height)
    assert len(lines) <= height
    hidden = next(int(line.split()[1]) for line in lines if line.startswith("..."))
    assert hidden + sum(line.startswith("g") for line in lines) == 40


def test_rows_of_what_does_not_run_are_red(sample: Sample) -> None:
    """So that it is seen among many."""
    styles = {line.text.split()[0]: line.style for line in draw(sample, 80) if line.text}
    assert (styles["a"], styles["disk0"], styles["hv0"]) == ("red", "", "")


def test_guest_has_a_line_for_each_device_that_does_something(sample: Sample) -> None:
    """The busiest one is on the guest's own line."""
    (guest,) = sample.guests
    quiet, busy = guest.devices[1], guest.devices[0]
    both = replace(guest, devices=(replace(quiet, requests_per_s=1.0), busy))
    assert [(line.device and line.device.device, line.first) for line in guest_lines([guest, both])] == [
        ("disk", True),
        ("disk", True),
        ("virtio_console", False),
    ]


def test_guest_without_devices_has_a_line(sample: Sample) -> None:
    """It may not have come up yet."""
    (line,) = guest_lines([replace(sample.guests[0], devices=())])
    assert line.device is None


@pytest.mark.parametrize("key", SORT_KEYS[1:])
def test_guests_with_most_of_it_come_first(sample: Sample, key: SortKey) -> None:
    """Those of which it is not known come last, in the topology's order."""
    (guest,) = sample.guests
    disk = guest.devices[0]
    more = replace(
        guest,
        name="more",
        traps_per_s=99.0,
        interrupts_per_s=99.0,
        messages_per_s=99.0,
        devices=(replace(disk, requests_per_s=99.0, bytes_out_per_s=1e9, waiting=9),),
    )
    unknown = replace(guest, name="unknown", traps_per_s=None, interrupts_per_s=None, messages_per_s=None, devices=())
    rows: list[GuestRow] = [unknown, guest, more]
    assert [row.name for row in sort_guests(rows, key)] == ["more", "a", "unknown"]
    assert [row.name for row in sort_guests(rows, "name")] == ["unknown", "a", "more"]


def test_hosts_that_tell_nothing_are_named(sample: Sample) -> None:
    """At the end, in a line of the terminal's width."""
    (line,) = draw(replace(sample, problems={"b": "host 'b' does not answer\x1b[2J"}), 20)[-1:]
    assert line == ("host 'b' does not an", "red")


def test_what_could_steer_a_terminal_is_not_shown(tmp_path: Path) -> None:
    """A state is a process's own word."""
    evil = status("hv0", "hypervisor", 0)
    shown = texts(sample_of(topology(tmp_path), [replace(evil, state="\x1b[2J\n")]), 80)
    assert all(line.isprintable() for line in shown)
