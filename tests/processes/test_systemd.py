"""The system service that ships: its unit is right, and what it executes serves and ends as it says."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status
from iovirt_dist.testing.documents import free_port
from iovirt_dist.topology import load_topology

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "iovirt@.service"
SYSUSERS = UNIT.with_name("iovirt.sysusers")
INSTALLED = "/opt/iovirt/bin/"
TOPOLOGY = """
[topology]
run_dir = ".iovirt"
[host.a]
address = "127.0.0.1"
[host.b]
address = "127.0.0.1"
control_port = {control}
first_port = {first}
[hypervisor.hva]
host = "a"
[controller.tty0]
kind = "console"
host = "b"
"""
START_S = 30.0


def values(key: str) -> list[str]:
    """What the unit says of a key."""
    return [line.partition("=")[2] for line in UNIT.read_text("utf-8").splitlines() if line.startswith(f"{key}=")]


@pytest.fixture
def state() -> Iterator[Path]:
    """The state directory of an instance, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.firmware
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: install the package systemd")
@pytest.mark.parametrize("check", [["verify", "--man=no"], ["security", "--offline=true", "--threshold=25"]])
def test_unit_is_understood_and_hardened(tmp_path: Path, check: list[str]) -> None:
    """By systemd itself; of its scale of exposure from 0 to 10 it has less than 2.5."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(INSTALLED, f"{Path(sys.executable).parent}/"))
    done = subprocess.run(["systemd-analyze", *check, unit], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_unit_runs_as_the_user_that_is_made_for_it() -> None:
    """And what it may write is its state directory."""
    made = [line.split()[1] for line in SYSUSERS.read_text("utf-8").splitlines() if line.startswith("u ")]
    assert values("User") == values("Group") == made
    assert values("WorkingDirectory") == [f"%S/{values('StateDirectory')[0]}"]


def test_unit_gives_up_what_the_command_line_calls_wrong_usage(state: Path) -> None:
    """A topology that is wrong ends with the status that is not tried again."""
    (state / "topology.toml").write_text("[guest.x]\n")
    done = subprocess.run(command(), cwd=state, env=environ({}), capture_output=True, timeout=60, check=False)
    assert [str(done.returncode)] == values("RestartPreventExitStatus")


def test_unit_starts_one_hosts_part_and_ends_it_on_sigterm(state: Path) -> None:
    """With the host's name from the file beside the topology; nothing is left behind."""
    (state / "topology.toml").write_text(TOPOLOGY.format(control=free_port(), first=free_port()))
    run_dir = RunDir(load_topology(state / "topology.toml").at("b").run_dir)

    with subprocess.Popen(command(), cwd=state, env=environ({"IOVIRT_HOST": "b"}), stderr=subprocess.PIPE) as service:
        deadline = time.monotonic() + START_S
        while "tty0" not in read_status(run_dir) and time.monotonic() < deadline and service.poll() is None:
            time.sleep(0.05)
        running = set(read_status(run_dir))
        service.terminate()
        _, errors = service.communicate(timeout=30)

    assert {name for name in running if not name.startswith("_")} == {"tty0"}, errors.decode()
    assert service.returncode == 0
    assert run_dir.leftovers() == []


def command() -> list[str]:
    """What the unit executes, from where the package is here."""
    (line,) = values("ExecStart")
    return shlex.split(line.replace(INSTALLED, f"{Path(sys.executable).parent}/"))


def environ(host: dict[str, str]) -> dict[str, str]:
    """The service's environment."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}
    return {**own, **dict(line.split("=", 1) for line in values("Environment")), **host}
