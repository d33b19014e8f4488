"""``iovirt set``, without processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from iovirt_dist.cli import qos
from iovirt_dist.cli.main import main
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import StatusWriter

TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
[guest.g]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices.disk = "disk0"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A topology that is not up."""
    path = tmp_path / "t.toml"
    path.write_text(TOPOLOGY)
    return str(path)


def hypervisor(file: str, revision: int) -> StatusWriter:
    """A hypervisor that says it has followed so far; it is this very process."""
    run_dir = RunDir(Path(file).parent / ".iovirt")
    run_dir.create()
    writer = StatusWriter(run_dir, "hv0", "hypervisor", os.getpid(), time.time_ns())
    held = {"scheduler": "drr", "weight": 5, "requests": 0}
    writer.update(time.time_ns(), state="running", qos_revision=revision, guests={"g": {"qos": {"disk": held}}})
    return writer


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["g.disk", "weight"], "'weight': expected KEY=VALUE; such as iops=1000, bandwidth=10MiB or weight=2"),
        (["g.disk", "wieght=2"], "'wieght=2': no setting 'wieght'; did you mean 'weight'?"),
        (["g.disk", "priority=high"], "'priority=high': scheduler \"drr\" does not look at priority"),
        (["g.rng", "iops=2"], "'g.rng': guest 'g' has no device 'rng' to share; known: disk"),
        (["x.disk", "iops=2"], "'x.disk': no guest 'x'; known: g"),
        (["disk", "iops=2"], "'disk': expected GUEST.DEVICE"),
    ],
)
def test_wrong_words_are_usage_errors(
    file: str, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    """Each with what would be right; nothing is written."""
    assert main(["set", *argv, "--file", file]) == 2
    assert message in capsys.readouterr().err
    assert not (Path(file).parent / ".iovirt").exists()


def test_topology_that_is_not_up_cannot_be_changed(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and what to do."""
    assert main(["set", "g.disk", "iops=5", "--file", file]) == 1
    assert "hypervisor 'hv0' does not run" in capsys.readouterr().err


def test_set_says_what_the_hypervisor_says(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not what was asked for."""
    hypervisor(file, revision=1)

    changed = main(["set", "g.disk", "iops=none", "--file", file])
    shown = main(["set", "g.disk", "--file", file])

    assert (changed, shown) == (0, 0)
    assert capsys.readouterr().err == "iovirt: g.disk: scheduler=drr weight=5 requests=0\n" * 2


def test_hypervisor_that_does_not_follow_is_an_error(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting stays in the file, and it may follow later."""
    hypervisor(file, revision=0)
    monkeypatch.setattr(qos, "WAIT_S", 0.0)

    assert main(["set", "g.disk", "weight=2", "--file", file]) == 1
    assert "has not followed within 0 s" in capsys.readouterr().err
