"""Table and verdict of ``iovirt compare --drivers``."""

from __future__ import annotations

import pytest

from iovirt_dist.cli.compare_drivers import _compared
from iovirt_dist.cli.compare_drivers_table import print_placements
from iovirt_dist.cli.main import main
from tests.unit.compare.placements import placement


def test_table_fits_80_columns_and_names_classes_and_host_drivers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With large numbers, too."""
    monkeypatch.setenv("COLUMNS", "80")
    print_placements({"native": placement("native"), "driver_domain": placement("dom0")})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("read, depth 1: p50 / p99 us") and "12345 / 123456" in line for line in lines)
    assert "native, in the hypervisor: DiskDriver, TerminalDriver, EntropyDriver" in lines
    assert "driver domain, of the host: files, pseudo-terminals, getrandom" in lines


@pytest.mark.parametrize("options", [["--level", "driver"], ["--plot", "x.png"], ["--size", "8"], ["--write", "50"]])
def test_options_of_the_levels_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """They would have no effect."""
    assert main(["compare", "--drivers", *options]) == 2
    assert "options of the levels' job do not go with --drivers" in capsys.readouterr().err


def test_disks_that_differ_are_a_problem_of_both() -> None:
    """Nobody knows whose is right."""
    same = _compared({"native": placement("native"), "driver_domain": placement("dom0")})
    differ = _compared({"native": placement("native"), "driver_domain": placement("dom0", sha256="6" * 64)})
    assert [one.problems for one in same.values()] == [(), ()]
    assert [one.problems for one in differ.values()] == [("the disks of the two placements differ",)] * 2
