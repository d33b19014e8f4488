"""The README's section 'Two machines', command for command, on two hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology import load_topology
from tests.hosts.networks import Networks

ROOT = Path(__file__).parents[2]
SECTION = re.search(
    r"^##+ Two machines\n(.*?)(?=^##+ |\Z)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
COPY = "scp -r . b:two"
"""What the section says between its blocks; the test does it by other means."""

if SECTION is None:
    raise AssertionError("the README has no section 'Two machines'")


class Machine:
    """Somebody at a host: a folder of its own to begin in, and commands.

    Args:
        networks: The hosts.
        host: Which one.
        home: Where to begin.
    """

    def __init__(self, networks: Networks, host: str, home: Path) -> None:
        self.folder = self.home = home
        self._enter = networks.enter(host)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a shell would, and stay in the folder that it went to."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {key: value for key, value in os.environ.items() if not key.startswith("IOVIRT_")}
        environ = {**own, "PATH": path, "HOME": str(self.home), "COLUMNS": "80"}
        line = f"{command} && pwd >{self.home / 'pwd'}"
        done = subprocess.run(
            [*self._enter, "bash", "-c", line],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if done.returncode == 0:
            self.folder = Path((self.home / "pwd").read_text().strip())
        return done


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    """Machine a with a clone, machine b with an empty folder; whatever is up at the end is taken down."""
    home = Path(tempfile.mkdtemp(prefix="iovirt-", dir="/tmp"))
    (home / "a").mkdir()
    (home / "b").mkdir()
    shutil.copytree(ROOT / "deploy", home / "a" / "deploy")
    try:
        with Networks(("a", "b")) as networks:
            both = {host: Machine(networks, host, home / host) for host in ("a", "b")}
            yield both
            for host in ("b", "a"):
                both[host].run(f"iovirt down -f {home / host}/two/two-hosts.toml --host {host}")
    finally:
        shutil.rmtree(home)


def commands(block: str) -> list[tuple[str, str]]:
    """Who types what, line by line."""
    return re.findall(r"^([ab])\$ (.+)$", block, re.MULTILINE)


@pytest.mark.timeout(300)
def test_readme_two_machines_works_word_for_word(machines: dict[str, Machine]) -> None:
    """Every command ends well; the guests are on both machines, and nothing is left in the end."""
    assert SECTION is not None
    before, copied, after = SECTION[1].partition(COPY)
    printed: dict[str, str] = {}

    for host, command in commands(before):
        done = machines[host].run(command)
        assert done.returncode == 0, f"{host}$ {command}\n{done.stdout}\n{done.stderr}"
    shutil.copytree(machines["a"].folder, machines["b"].home / "two")
    for host, command in commands(after):
        done = machines[host].run(command)
        assert done.returncode == 0, f"{host}$ {command}\n{done.stdout}\n{done.stderr}"
        printed[command] = done.stdout + done.stderr

    assert copied
    assert len(printed) == 8
    assert re.search(r"^worker-1 .* on hva", printed["iovirt ps"], re.MULTILINE)
    assert re.search(r"^worker-2 .* on hvb", printed["iovirt ps"], re.MULTILINE)
    assert "worker-4 started on hvb, host b" in printed["iovirt scale worker=4"]
    for host, machine in machines.items():
        part = load_topology(machine.home / "two" / "two-hosts.toml").at(host)
        assert RunDir(part.run_dir).leftovers() == []
