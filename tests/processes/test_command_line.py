"""up, down, ps and logs as a user runs them, with stand-ins for the services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import start_ticks

SERVICE = """
import os, signal, sys, time
from pathlib import Path
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import select
topology, spec = select({kind!r}, sys.argv[1:], os.environ)
stop = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
run_dir = RunDir(topology.run_dir)
status = StatusWriter(run_dir, spec.name, {kind!r}, time.time_ns(), time.time_ns())
try:
    {body}
    print(f"{{spec.name}}: ready", flush=True)
    status.update(time.time_ns(), state="running")
    while True:
        signal.pause()
finally:
    status.remove()
"""
"""Writes its status and waits for SIGTERM, as the real ones do."""

TOPOLOGY = """
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[guest.alice]
kind = "machine"
hypervisor = "hv0"
image = "bundled:guestos"
restart = "never"
devices.console = "tty0"
"""

Iovirt = Callable[..., "subprocess.CompletedProcess[str]"]


def write_service(folder: Path, kind: str, body: str = "pass") -> None:
    """Write a stand-in for one process type; `body` runs before it is ready."""
    package = folder / "fake" / "services"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package / f"{kind}.py").write_text(SERVICE.format(kind=kind, body=body))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A topology ``t.toml`` and stand-ins for its services, where socket paths stay short."""
    with tempfile.TemporaryDirectory(prefix="iv") as name:
        path = Path(name)
        (path / "t.toml").write_text(TOPOLOGY)
        for kind in ("hypervisor", "console", "guest", "block"):
            write_service(path, kind)
        yield path


@pytest.fixture
def environ(folder: Path) -> dict[str, str]:
    """Environment in which the stand-ins are found before the real services."""
    path = os.pathsep.join([str(folder / "fake"), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path, "IOVIRT_TOPOLOGY": str(folder / "t.toml"), "COLUMNS": "80"}


@pytest.fixture
def iovirt(folder: Path, environ: dict[str, str]) -> Iterator[Iovirt]:
    """Run ``iovirt`` as a process in `folder`; what it leaves running is taken down at the end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "iovirt_dist.cli.main", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    yield run
    run("down")


def processes(iovirt: Iovirt) -> dict[str, dict[str, Any]]:
    """What ``ps --json`` says, by name."""
    return {row["name"]: row for row in json.loads(iovirt("ps", "--json").stdout)["processes"]}


def test_detached_topology_from_up_to_down(folder: Path, iovirt: Iovirt) -> None:
    """Up, refused a second time, listed, logged, down, and nothing left."""
    up = iovirt("up", "-d", "--json")
    rows = {row["name"]: row for row in json.loads(up.stdout)["processes"]}
    assert (up.returncode, [row["state"] for row in rows.values()]) == (0, ["running"] * 3)
    again = iovirt("up", "-d")
    assert again.returncode == 1
    assert again.stderr.startswith(f"iovirt: error: {folder}/.iovirt: a topology is up in this run directory; stop it")
    assert iovirt("logs", "hv0").stdout == "hv0 | ready\n"
    assert json.loads(iovirt("logs", "--json", "hv0").stdout) == {"logs": {"hv0": ["ready"]}}
    down = iovirt("down", "--json")
    assert json.loads(down.stdout)["stopped"] == ["alice", "hv0", "tty0"]
    assert [start_ticks(row["pid"]) for row in rows.values()] == [None] * 3
    assert RunDir(folder / ".iovirt").leftovers() == []
    assert iovirt("down").stderr == "iovirt: nothing was up\n"


def test_commands_without_a_file_find_what_is_up_here(iovirt: Iovirt, environ: dict[str, str]) -> None:
    """Only ``up`` needs the file's name."""
    del environ["IOVIRT_TOPOLOGY"]
    iovirt("up", "-d", "-f", "t.toml")
    assert list(processes(iovirt)) == ["tty0", "hv0", "alice"]
    assert iovirt("down").stderr == "iovirt: stopped alice, hv0, tty0\n"
    assert list(processes(iovirt)) == ["disk0", "tty0", "hv0", "guest"]


def test_detached_process_that_fails_is_named(folder: Path, iovirt: Iovirt) -> None:
    """The others stay up; the exit status is 1."""
    write_service(folder, "guest", "sys.exit(2)")
    up = iovirt("up", "-d")
    assert up.returncode == 1
    assert "iovirt: error: alice: ended (exit status 2); see 'iovirt logs alice'\n" in up.stderr
    assert [row["state"] for row in processes(iovirt).values()] == ["running", "running", "ended"]


def test_detached_process_that_fails_at_start_gives_its_reason(folder: Path, iovirt: Iovirt) -> None:
    """Its own last words after three tries."""
    write_service(folder, "hypervisor", "sys.exit('iovirt: error: hv0: tcp://h:1: address is in use; change it')")
    up = iovirt("up", "-d")
    assert up.returncode == 1
    assert "iovirt: error: hv0: tcp://h:1: address is in use; change it (" in up.stderr
    assert "; see 'iovirt logs hv0')\n" in up.stderr


def test_detached_down_after_the_supervisor_was_killed(folder: Path, iovirt: Iovirt) -> None:
    """The processes die with their supervisor, and down removes the rest."""
    iovirt("up", "-d")
    supervisor = json.loads(RunDir(folder / ".iovirt").status("_up").read_text())
    os.kill(supervisor["pid"], signal.SIGKILL)
    down = iovirt("down", "--json")
    assert down.returncode == 0
    assert [start_ticks(row["pid"]) for row in supervisor["processes"].values()] == [None] * 3
    assert RunDir(folder / ".iovirt").leftovers() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_foreground_stops_in_order_and_leaves_nothing(
    folder: Path, environ: dict[str, str], number: signal.Signals, code: int
) -> None:
    """Logs behind names; guests, hypervisors, controllers stop one after the other."""
    command = [sys.executable, "-u", "-m", "iovirt_dist.cli.main", "up"]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        waiting = {"alice | ready", "hv0   | ready", "tty0  | ready"}
        for line in up.stdout:
            waiting.discard(line.strip())
            if not waiting:
                break
        up.send_signal(number)
        rest = up.stdout.read().splitlines()
    stopped = [line.split()[2] for line in rest if "stopped" in line]
    assert stopped == ["alice", "hv0", "tty0"]
    assert up.returncode == code
    assert RunDir(folder / ".iovirt").leftovers() == []


def test_foreground_takes_a_hang_up_for_one_however_often_it_comes(folder: Path, environ: dict[str, str]) -> None:
    """The shell sends it, and the kernel once more: still nobody is killed, and the order holds."""
    write_service(folder, "guest", "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(0)))")
    command = [sys.executable, "-u", "-m", "iovirt_dist.cli.main", "up"]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.strip() == "alice | ready":
                break
        up.send_signal(signal.SIGHUP)
        for line in up.stdout:
            if "stopped" in line:
                break
            up.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        up.send_signal(signal.SIGHUP)
        rest = [line, *up.stdout]
    assert [line.split()[2:] for line in rest if "stopped" in line] == [
        [name, "stopped", "(exit", "status", "0)"] for name in ("alice", "hv0", "tty0")
    ]
    assert up.returncode == 0
    assert RunDir(folder / ".iovirt").leftovers() == []


def test_foreground_whose_reader_is_gone_stops_in_order(folder: Path, environ: dict[str, str]) -> None:
    """As behind a pipe to a pager that was left: at the next line that it cannot write."""
    command = [sys.executable, "-u", "-m", "iovirt_dist.cli.main", "up"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=pipe, stderr=pipe, text=True) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        for line in up.stdout:
            if line.strip() == "hv0   | ready":
                break
        rows = json.loads(RunDir(folder / ".iovirt").status("_up").read_text())["processes"]
        up.stdout.close()
        os.kill(rows["hv0"]["pid"], signal.SIGKILL)
        errors = up.stderr.read()
    assert (up.returncode, errors) == (0, "")
    assert [start_ticks(row["pid"]) for row in rows.values()] == [None] * 3
    assert RunDir(folder / ".iovirt").leftovers() == []


def test_foreground_without_any_process_left_fails(folder: Path, iovirt: Iovirt) -> None:
    """Everything ended for good: there is nothing to wait for."""
    for kind in ("hypervisor", "console", "guest"):
        write_service(folder, kind, "sys.exit(2)")
    up = iovirt("up")
    assert up.returncode == 1
    assert up.stderr == "iovirt: every process ended by itself\n"


def test_ps_down_has_no_numbers(iovirt: Iovirt) -> None:
    """Nothing runs, and nothing is made up."""
    row = processes(iovirt)["hv0"]
    assert (row["state"], row["pid"], row["uptime_s"], row["epoch"]) == ("down", None, None, None)
    assert row["where"] == "sock/hv0"


def test_ps_after_a_kill_says_dead(folder: Path, iovirt: Iovirt) -> None:
    """A status file whose process is gone does not count."""
    run_dir = RunDir(folder / ".iovirt")
    run_dir.create()
    run_dir.status("hv0").write_text('{"name": "hv0", "pid": 4194304, "start_ticks": 1, "state": "running"}')
    assert processes(iovirt)["hv0"]["state"] == "dead"
    assert "hv0: pid 4194304 is gone" in iovirt("ps").stdout


def test_ps_table_fits_80_columns(iovirt: Iovirt) -> None:
    """On the terminal that everybody has."""
    lines = iovirt("ps").stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[0].split() == ["NAME", "KIND", "LEVEL", "STATE", "PID", "RST", "UP", "WHERE"]


def test_run_ends_with_its_guest(folder: Path, environ: dict[str, str], iovirt: Iovirt) -> None:
    """A guest that powers off ends the command, and nothing of it stays."""
    environ["TMPDIR"] = str(folder)
    write_service(folder, "guest", 'status.update(time.time_ns(), state="stopped", reason="powered off by pm")')
    ended = iovirt("run", "--image", "t.toml")
    assert (ended.returncode, ended.stderr) == (0, "iovirt: the guest stopped: powered off by pm\n")
    assert list(folder.glob("iovirt-*")) == []


def test_run_of_a_guest_that_stops_by_a_fault_is_exit_1(folder: Path, environ: dict[str, str], iovirt: Iovirt) -> None:
    """Its process lives on, idle, but the guest did not end as it wanted to."""
    environ["TMPDIR"] = str(folder)
    write_service(folder, "guest", 'status.update(time.time_ns(), state="stopped", reason="triple fault")')
    ended = iovirt("run", "--image", "t.toml")
    assert (ended.returncode, ended.stderr) == (1, "iovirt: the guest stopped: triple fault\n")


def test_run_of_a_guest_that_fails_silently_is_exit_1(folder: Path, environ: dict[str, str], iovirt: Iovirt) -> None:
    """An empty log is no success."""
    environ["TMPDIR"] = str(folder)
    write_service(folder, "guest", "os._exit(1)")
    ended = iovirt("run", "--image", "t.toml")
    assert ended.returncode == 1
    assert ended.stderr.endswith("iovirt: error: guest failed without a word\n")


def test_run_of_a_failing_guest_shows_why(folder: Path, environ: dict[str, str], iovirt: Iovirt) -> None:
    """The process's own last words, as they would be lost with its log."""
    environ["TMPDIR"] = str(folder)
    write_service(folder, "guest", "sys.exit('iovirt: error: guest: no such thing')")
    ended = iovirt("run", "--image", "t.toml")
    assert ended.returncode == 1
    assert ended.stderr.endswith("iovirt: error: guest: no such thing\n")


def test_run_terminated_leaves_nothing(folder: Path, environ: dict[str, str]) -> None:
    """SIGTERM takes the topology along."""
    environ["TMPDIR"] = str(folder)
    command = [sys.executable, "-m", "iovirt_dist.cli.main", "run", "--image", "t.toml"]
    with subprocess.Popen(command, cwd=folder, env=environ, stdin=subprocess.PIPE) as run:
        while not list(folder.glob("iovirt-*/run/status/guest.json")):
            time.sleep(0.01)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    assert list(folder.glob("iovirt-*")) == []
