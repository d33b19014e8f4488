"""The commands that ``iovirt run --dry-run`` prints, in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iovirt_dist.runtime.rundir import RunDir
from tests.guests.support import needs_vmm


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where socket paths stay short."""
    with tempfile.TemporaryDirectory(prefix="iv") as name:
        yield Path(name)


@needs_vmm("uml")
def test_commands_of_a_dry_run_start_the_machine_and_leave_nothing(folder: Path) -> None:
    """Whoever starts his own gets what ``iovirt run`` would start, and if that is up already it is let alone."""
    run = (sys.executable, "-m", "iovirt_dist.cli.main", "run", "--uml", "--disk", "vm.img", "--disk-size", "3MiB")
    printed = subprocess.run((*run, "--dry-run"), cwd=folder, capture_output=True, text=True, check=True).stdout
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run_dir = RunDir(folder / "iovirt-vm" / "run")
    with subprocess.Popen(
        ("bash", "-c", printed), cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shown = b""
        while b"/ # " not in shown:
            part = shell.stdout.read(4096)
            assert part, shown
            shown += part
        second = subprocess.run(
            ("bash", "-c", printed), cwd=folder, env=environ, capture_output=True, text=True, check=False
        )
        shell.stdin.write(b"wc -c < /dev/vda; poweroff -f\n")
        while part := shell.stdout.read(4096):
            shown += part

    assert "is up in this run directory" in second.stderr
    assert second.returncode != 0
    assert str(3 << 20).encode() in shown
    assert shell.returncode == 0
    assert run_dir.leftovers() == []
