"""Everything that the README shows is run here, in its order and in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from iovirt_dist.cli.compare_table import table_rows
from iovirt_dist.compare.job import Job
from tests.guests.support import BUSYBOX

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(?:<!-- (file|needs): (\S+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: what the comment before it says, its language and its text."""

    word: str
    value: str
    language: str
    text: str


def blocks() -> list[Block]:
    """All fenced blocks in order."""
    return [Block(*found) for found in BLOCK.findall(README.read_text("utf-8"))]


def commands(block: Block) -> list[str]:
    """The lines that a reader would type; a backslash at the end continues one."""
    return [line[2:] for line in block.text.replace("\\\n", "").splitlines() if line.startswith("$ ")]


def play(tmp_path: Path, chosen: list[Block]) -> None:
    """Write the files and run the commands; the first that fails fails the test with its output.

    The folder is the home folder too, with the third-party programs where `.ci/fetch-programs` puts them.
    """
    programs = tmp_path / ".cache" / "iovirt" / "programs"
    programs.parent.mkdir(parents=True)
    programs.symlink_to(BUSYBOX["amd64"].parents[1])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "HOME": str(tmp_path), "COLUMNS": "80", "PYTEST_ADDOPTS": ""}
    try:
        _play(tmp_path, chosen, environ)
    finally:
        subprocess.run(["iovirt", "down"], cwd=tmp_path, env=environ, capture_output=True, timeout=30, check=False)


def _play(tmp_path: Path, chosen: list[Block], environ: dict[str, str]) -> None:
    for block in chosen:
        if block.word == "file":
            (tmp_path / block.value).write_text(block.text, "utf-8")
        for command in commands(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                timeout=150,
                check=False,
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(400)
def test_readme_commands_and_files_work_in_order(tmp_path: Path) -> None:
    """What needs nothing but the package: topologies, commands, tests."""
    play(tmp_path, [block for block in blocks() if block.word != "needs"])


@pytest.mark.firmware
@pytest.mark.timeout(400)
@pytest.mark.parametrize("block", [block for block in blocks() if block.word == "needs"], ids=lambda block: block.value)
def test_readme_third_party_software_runs(tmp_path: Path, block: Block) -> None:
    """What needs a Debian package, or a program from one."""
    if not Path(block.value).expanduser().exists():
        pytest.skip(f"{block.value} is absent: .ci/run lists the Debian packages, .ci/fetch-programs fetches programs")
    play(tmp_path, [*(other for other in blocks() if other.word == "file"), block])


def test_readme_has_exactly_two_set_up_commands() -> None:
    """The first indented block behind 'Set-up' is all that a newcomer types."""
    text = README.read_text("utf-8").split("## Set-up")[1]
    first = re.search(r"(?:^    .+\n)+", text, re.MULTILINE)
    assert first is not None
    assert len(first.group().strip().splitlines()) == 2


def test_readme_comparison_has_rows_of_the_command() -> None:
    """The table that the README shortens and explains is the one that ``iovirt compare`` prints."""
    text = README.read_text("utf-8").split("## Comparing the levels")[1].split("\n## ")[0]
    shown = re.findall(r"^    (\S.*?)  +", text, re.MULTILINE)
    explained = [name for line in re.findall(r"^- ([^:]+):", text, re.MULTILINE) for name in line.split(", ")]
    printed = {row[0] for row in table_rows({}, Job(kib=64))}
    assert len(shown) >= 7
    assert len(explained) >= 6
    assert {*shown, *(name.strip("*") for name in explained)} <= printed
