"""``iovirt top`` and ``iovirt ps`` on a topology that works."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.runtime.status import ProcessStatus
from iovirt_dist.testing.live import LiveTopology, TopologyFactory

PATIENCE_S = 30.0
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
"""Of the alternate screen; xterm, DEC private mode 1049."""


def tables() -> dict[str, Any]:
    """Two guests that write to one disk as fast as they can, one with three times the other's weight.

    Nothing is made stable: how long a sync takes is the test machine's own affair.
    """
    extents = {name: {"offset": at << 20, "size": 1 << 20} for at, name in enumerate(("a", "b"))}
    block = {"kind": "block", "image": "d.img", "size": 2 << 20, "depth": 16, "extents": extents}
    block["durability"] = "write-back"
    guests = {
        name: {
            "kind": "script",
            "hypervisor": "hv0",
            "script": "iovirt_dist.guest.script.load:main",
            "parameters": {"request": "write", "seconds": 300.0, "interrupts": True},
            "devices": {"disk": f"disk0/{name}"},
            "qos": {"disk": {"weight": weight}},
        }
        for name, weight in (("a", 1), ("b", 3))
    }
    return {"hypervisor": {"hv0": {}}, "controller": {"disk0": block}, "guest": guests}


def busy(status: ProcessStatus) -> bool:
    """Whether both guests' requests have come to the hypervisor."""
    guests = status.content["guests"]
    return len(guests) == 2 and all(guest["disk_requests"] > 100 for guest in guests.values())


async def working(iovirt: TopologyFactory) -> LiveTopology:
    """The topology, when both guests write."""
    topology = await iovirt.up(tables())
    await topology.hypervisor().wait_status(busy)
    return topology


async def test_top_once_shows_plausible_numbers(iovirt: TopologyFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides of each count agree; b is entitled to three times as much as a."""
    topology = await working(iovirt)

    code = main(["top", "--file", str(topology.topology.source), "--once", "--json", "--interval", "2"])
    sample = json.loads(capsys.readouterr().out)

    light, heavy = ({**guest, "disk": guest["devices"][0]} for guest in sample["guests"])
    (disk0,), (hv0,) = sample["controllers"], sample["hypervisors"]
    assert code == 0
    assert (light["name"], light["state"], heavy["name"], heavy["state"]) == ("a", "running", "b", "running")
    assert (light["disk"]["entitled"], heavy["disk"]["entitled"]) == (0.25, 0.75)
    assert light["disk"]["share"] + heavy["disk"]["share"] == pytest.approx(1, abs=0.01)
    assert light["disk"]["requests_per_s"] > 0
    assert light["disk"]["bytes_out_per_s"] > 0
    assert light["messages_per_s"] + heavy["messages_per_s"] == pytest.approx(hv0["messages_per_s"], abs=0.01)
    assert light["traps_per_s"] > 0
    assert light["interrupts_per_s"] > 0
    assert light["cpu"] > 0
    assert light["rss_bytes"] > 1 << 20
    assert disk0["commands_per_s"] > 0
    assert disk0["syncs_per_s"] == 0
    assert set(disk0["faults"].values()) == {0}
    assert disk0["pairs"][0]["in_flight"] <= disk0["pairs"][0]["credits"]
    assert hv0["guests"] == 2


async def test_top_prints_as_many_samples_as_wanted(
    iovirt: TopologyFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object a line, or tables as wide as COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "80")
    argv = ["top", "--file", str((await working(iovirt)).topology.source), "--interval", "0.1", "-n", "2"]

    codes = [main([*argv, "--json"])]
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    codes += [main([*argv, "--sort", "iops"])]
    lines = capsys.readouterr().out.splitlines()

    assert codes == [0, 0]
    assert first["at_ns"] < second["at_ns"]
    heads = [line.split()[0] for line in lines if line]
    assert [head for head in heads if head not in ("a", "b")] == 2 * [
        "default", "GUEST", "CONTROLLER", "disk0", "<", "HYPERVISOR", "hv0",
    ]  # fmt: skip
    assert {heads[2], heads[3]} == {"a", "b"}
    assert max(map(len, lines)) <= 80


async def test_ps_tells_everything_that_processes_tell(
    iovirt: TopologyFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts of repeated and stray commands, and what sessions dropped."""
    topology = await working(iovirt)

    main(["ps", "--file", str(topology.topology.source), "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["processes"]}

    controller, hypervisor = rows["disk0"]["status"], rows["hv0"]["status"]
    assert [controller[key] for key in ("repeated_in_flight", "repeated_done", "strays")] == [0, 0, 0]
    assert hypervisor["guests"]["a"].keys() >= {"duplicates", "gaps", "repeated", "unacknowledged"}
    assert hypervisor["controllers"]["disk0"]["gaps"] == 0
    assert rows["a"]["status"].keys() >= {"traps", "queues", "duplicates", "gaps", "results"}


@dataclass
class Screen:
    """A terminal with ``iovirt top`` on it.

    Attributes:
        process: The command.
        terminal: Our side.
        before: The terminal's settings when it began.
        shown: Everything that was written so far.
    """

    process: subprocess.Popen[bytes]
    terminal: int
    ours: int
    before: list[Any] = field(default_factory=list)
    shown: bytearray = field(default_factory=bytearray)

    def wait(self, done: Callable[[], bool]) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"showed only {bytes(self.shown)!r}"
            if select.select([self.ours], [], [], 0.05)[0]:
                self.shown += os.read(self.ours, 65536)

    def ended(self) -> int:
        """Wait for the end, and for all that was written; returns the exit status."""
        self.wait(lambda: self.process.poll() is not None)
        self.wait(lambda: not select.select([self.ours], [], [], 0)[0])
        assert self.process.returncode is not None
        return self.process.returncode


@pytest.fixture
def watch() -> Iterator[Callable[[LiveTopology], Screen]]:
    """Start ``iovirt top`` on a terminal of 80 columns; it is gone when the test ends."""
    screens: list[Screen] = []

    def start(topology: LiveTopology) -> Screen:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        argv = [sys.executable, "-m", "iovirt_dist.cli.main", "top", "--interval", "0.2"]
        argv += ["--file", str(topology.topology.source)]
        before = termios.tcgetattr(theirs)
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}  # what a shell may export does not matter
        process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        screens.append(Screen(process, theirs, ours, before))
        return screens[-1]

    yield start
    for screen in screens:
        screen.process.kill()
        screen.process.wait()
        os.close(screen.ours)
        os.close(screen.terminal)


async def test_top_on_a_terminal_follows_keys_and_gives_it_back(
    iovirt: TopologyFactory, watch: Callable[[LiveTopology], Screen]
) -> None:
    """'s' sorts, a new size is followed, 'q' leaves; the screen is never cleared, so nothing flickers."""
    screen = watch(await working(iovirt))

    screen.wait(lambda: screen.shown.count(b"HYPERVISOR") >= 2)
    os.write(screen.ours, b"s")
    screen.wait(lambda: b"by iops" in screen.shown)
    os.write(screen.ours, b"x\x1a")
    fcntl.ioctl(screen.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    screen.wait(lambda: b"FAULTS" in screen.shown)
    os.write(screen.ours, b"q")

    assert screen.ended() == 0
    assert (screen.shown.count(ENTER), screen.shown.count(LEAVE), screen.shown.count(b"\x1b[2J")) == (1, 1, 0)
    assert termios.tcgetattr(screen.terminal) == screen.before


def interrupted(screen: Screen, number: signal.Signals) -> int:
    """Send a signal once the first sample is shown; returns the exit status."""
    screen.wait(lambda: b"HYPERVISOR" in screen.shown)
    screen.process.send_signal(number)
    return screen.ended()


async def test_top_that_is_interrupted_gives_the_terminal_back(
    iovirt: TopologyFactory, watch: Callable[[LiveTopology], Screen]
) -> None:
    """Whoever ends it: the screen, the cursor and the keys are as before, and there is no traceback."""
    topology = await working(iovirt)
    screens = [watch(topology) for _ in range(3)]

    codes = [
        interrupted(screen, number)
        for screen, number in zip(screens, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), strict=True)
    ]

    assert codes == [130, 143, 129]
    assert all(screen.shown.endswith(b"\x1b[?25h" + LEAVE) for screen in screens)
    assert not any(b"Traceback" in screen.shown for screen in screens)
    assert all(termios.tcgetattr(screen.terminal) == screen.before for screen in screens)
