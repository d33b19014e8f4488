"""Options, table and picture of ``iovirt compare``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from iovirt_dist.cli.compare import job_of, report_problems, rows_of
from iovirt_dist.cli.compare_plot import check_plot
from iovirt_dist.cli.compare_table import marks, print_comparison, ratio_rows
from iovirt_dist.cli.main import main
from iovirt_dist.compare.counts import Counts
from iovirt_dist.compare.job import Job
from iovirt_dist.compare.knowledge import ASPECTS, Known
from iovirt_dist.compare.result import Drivers, RowResult
from iovirt_dist.compare.rows import ROWS
from iovirt_dist.errors import ConfigError

WHOLE, REBUILT, SOME, NONE = Known(4, 4, 0, 8, 8), Known(4, 0, 4, 8, 2), Known(4, 1, 0, 8, 1), Known(4, 0, 0, 8, 0)


def knows(*known: Known) -> Mapping[str, Known]:
    """The aspects in their order; the rest is lost."""
    return dict(zip(ASPECTS, [*known, *[NONE] * 7][:7], strict=True))


def row(traps: int, seconds: float, problems: tuple[str, ...] = ()) -> RowResult:
    """A row with the longest names that there are, and large numbers."""
    drivers = Drivers(
        guest="virtio",
        virtual_device="SystemCallInterception",
        host="DiskDriver",
        controller="disk0",
        abi="linux_i386",
        abi_routines=72,
        abi_lines=2516,
    )
    counts = Counts({"port_in": traps}, 2 * traps, 80 * traps, 4, 1 << 20, 511, 2, 2)
    return RowResult(
        counts=counts,
        total=counts,
        seconds=seconds,
        sha256="5" * 64,
        calls={},
        knows=knows(WHOLE, REBUILT, SOME),
        drivers=drivers,
        problems=problems,
    )


def test_marks_are_capital_small_query_and_dash() -> None:
    """Known, reconstructed, partly known, lost."""
    assert marks(knows(WHOLE, REBUILT, SOME, NONE)) == "Dr?----"


def test_table_of_all_rows_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with numbers of a large job, and with ratios of eight digits."""
    monkeypatch.setenv("COLUMNS", "80")
    results = {each.name: row(traps, 1234.5) for each, traps in zip(ROWS, (53_687_091, 1_050_624, 1, 22), strict=True)}

    print_comparison(results, Job(102_400, 65_536, 30))

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("traps per MiB") for line in lines)
    assert "30 % of them written back" in " ".join(lines)


def test_ratio_rows_say_what_the_driver_level_saves() -> None:
    """None without the row that all are compared with."""
    assert ratio_rows({"operation": row(1000, 8), "driver": row(10, 2)}) == [
        ("operation", "100 x", "84 x", "1.1 x", "4 x")
    ]
    assert ratio_rows({"operation": row(1000, 8)}) == []


def test_report_of_a_problem_is_a_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong checksum, for one."""
    code = report_problems({"driver": row(1, 1), "syscall": row(1, 1, ("the guest's sha256 is aa, the host's bb",))})

    assert code == 1
    assert capsys.readouterr().err == "iovirt: error: compare: syscall: the guest's sha256 is aa, the host's bb\n"
    assert report_problems({"driver": row(1, 1)}) == 0


def test_rows_of_a_name_are_one_row_and_of_none_all() -> None:
    """The names are those of the results."""
    assert [each.name for each in rows_of("driver")] == ["driver"]
    assert rows_of(None) == ROWS


def test_job_of_options_in_range_is_a_job() -> None:
    """Sizes as in a topology."""
    assert job_of(256, "4KiB", 10) == Job(256, 4096, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0"], "iovirt compare: --size: expected 1 to 1048576 KiB, got 0"),
        (["--block-size", "1000"], "--block-size: expected 512B to 1MiB in whole sectors, got 1000"),
        (["--block-size", "2MiB"], "--block-size: expected 512B to 1MiB in whole sectors, got 2MiB"),
        (["--block-size", "big"], "--block-size: expected a size such as"),
        (["--write", "101"], "iovirt compare: --write: expected 0 to 100, got 101"),
        (["--level", "kernel"], "--level"),
        (["--plot", "table.xyz"], "--plot: "),
    ],
)
def test_compare_option_out_of_range_is_one_line_and_exit_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started."""
    code = main(["compare", *options])

    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before minutes of work."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=r"pip install 'iovirt-dist\[plot\]'"):
        check_plot(tmp_path / "plot.png")


def test_plot_into_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As is a format that is unknown."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())

    with pytest.raises(ConfigError, match="there is no folder"):
        check_plot(tmp_path / "absent" / "plot.png")
    with pytest.raises(ConfigError, match=r"\.png \.svg \.pdf"):
        check_plot(tmp_path / "plot.txt")
