"""Two hosts of one topology: what runs where, who answers whom, and who is out of reach."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from tests.processes.two_hosts import START_S, TwoHosts


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """A topology file of two hosts, of which nothing is up."""
    made = TwoHosts()
    yield made
    made.close()


def test_guests_of_two_hosts_share_the_controllers_of_one(hosts: TwoHosts) -> None:
    """Each host has its own processes and run directory; whoever asks without a host sees all of them."""
    hosts.up("a", "b")
    hosts.wait(lambda: hosts.verified("a", "load-1") and hosts.verified("b", "load-2"), "verified on both hosts")

    rows = {row["name"]: row for row in hosts.answer("ps")["processes"]}

    assert set(hosts.status("a")) == {"disk0", "tty0", "hv-a", "load-1"}
    assert set(hosts.status("b")) == {"hv-b", "load-2"}
    assert {name: row["host"] for name, row in rows.items()} == {
        **dict.fromkeys(("disk0", "tty0", "hv-a", "load-1"), "a"),
        **dict.fromkeys(("hv-b", "load-2"), "b"),
    }
    assert {row["state"] for row in rows.values()} == {"running"}
    assert all(row["pid"] for row in rows.values())


def test_host_that_is_down_is_told_and_holds_nobody_up(hosts: TwoHosts) -> None:
    """The others are shown as they are; 'down' left nothing of it behind."""
    hosts.up("a", "b")

    down = hosts.answer("down", "--host", "b")
    seen = hosts.answer("ps")
    table = hosts.iovirt("ps")

    assert down["stopped"] == ["hv-b", "load-2"]
    assert down["killed"] == []
    assert hosts.run_dir("b").leftovers() == []
    assert list(seen["problems"]) == ["b"]
    states = {row["name"]: row["state"] for row in seen["processes"]}
    assert (states["hv-b"], states["load-2"], states["hv-a"]) == ("unknown", "unknown", "running")
    assert table.returncode == 0
    assert "host 'b' does not answer at tcp://127.0.0.2:" in table.stderr


def test_console_of_a_guest_is_where_its_controller_is(hosts: TwoHosts) -> None:
    """Without a host it is found; on another one the user is told where it is."""
    hosts.up("a", "b")

    found = hosts.iovirt("console", "load-2", "--expect", r"^line \d+", "--timeout", "20", "--history")
    elsewhere = hosts.iovirt("console", "load-2", "--host", "b")

    assert found.returncode == 0, found.stderr
    assert elsewhere.returncode == 2
    assert "'tty0' is on host 'a', not on 'b'; say --host a" in elsewhere.stderr


def test_control_address_that_is_taken_ends_up_in_a_line(hosts: TwoHosts) -> None:
    """Nothing was started, nothing is left."""
    control = next(line for line in hosts.file.read_text().splitlines() if line.startswith("control_port"))
    with socket.create_server(("127.0.0.1", int(control.partition("=")[2]))):
        done = hosts.iovirt("up", "--host", "a", "-d")

    assert done.returncode == 1
    assert "address is in use" in done.stderr
    assert hosts.status("a") == {}
    assert hosts.run_dir("a").leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_a_host_in_the_foreground_leaves_nothing(hosts: TwoHosts, number: signal.Signals) -> None:
    """Processes, sockets and status files go; the other host goes on."""
    hosts.up("b")
    foreground = hosts.start("up", "--host", "a")
    hosts.wait(lambda: hosts.verified("a", "load-1"), "verified on host a")

    foreground.send_signal(number)
    code = foreground.wait(START_S)

    assert code == {signal.SIGINT: 130, signal.SIGTERM: 0}[number]
    assert hosts.status("a") == {}
    assert hosts.run_dir("a").leftovers() == []
    assert set(hosts.status("b")) == {"hv-b", "load-2"}
