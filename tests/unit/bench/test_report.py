"""What a benchmark's result says, as a row and as an object."""

from __future__ import annotations

import msgspec
import pytest

from iovirt_dist.bench.report import WIDTH, Result, Target, as_object, machine, print_report, versions
from iovirt_dist.bench.sampling import Figures

RATIO = Result(
    "trap",
    "trap : echo",
    "us",
    Target(1.25),
    Figures(120.0, 300.0, 110.0),
    Figures(100.0, 200.0, 90.0),
    "echo",
    details={"rounds": 2},
)
VALUE = Result("read", "read", "s", Target(3.0), Figures(3.5, 3.6, 3.4))
SKIPPED = Result("boot", "boot : plain", "s", Target(3.0), base_name="plain", skipped="package u-boot-qemu is missing")


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(1.25), 1.25, True),
        (Target(1.25), 1.26, False),
        (Target(0.8, at_most=False), 0.8, True),
        (Target(0.8, at_most=False), 0.79, False),
    ],
)
def test_target_is_a_maximum_or_a_minimum(target: Target, value: float, met: bool) -> None:
    """The limit itself is within."""
    assert target.met(value) is met


def test_verdict_is_of_the_ratio_where_there_is_another_side() -> None:
    """Else of the value; of nothing when skipped."""
    assert (RATIO.ratio, RATIO.met) == (1.2, True)
    assert (VALUE.ratio, VALUE.met) == (None, False)
    assert (SKIPPED.ratio, SKIPPED.met) == (None, None)


def test_verdict_is_of_the_value_where_the_target_is_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The ratio is told all the same."""
    target = Target(60_000, at_most=False, of_value=True)
    result = Result("read", "read", "IOPS", target, Figures(61e3, 6e4, 6e4), Figures(122e3, 1e5, 1e5), "relay")

    print_report({"doorbells": [result]})

    assert (result.ratio, result.met) == (0.5, True)
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        *("read", "61", "kIOPS", "122", "kIOPS", "0.50", ">=", "60", "kIOPS", "met")
    ]


def test_object_holds_machine_versions_and_both_sides() -> None:
    """One object that JSON can carry."""
    report = msgspec.json.decode(msgspec.json.encode(as_object({"traps": [RATIO], "uboot": [SKIPPED]})))

    assert set(report) == {"machine", "versions", "traps", "uboot"}
    assert report["traps"]["trap"]["ours"] == {"p50": 120.0, "p99": 300.0, "best": 110.0}
    assert report["traps"]["trap"]["base"]["p50"] == 100.0
    assert report["traps"]["trap"]["target"] == {"limit": 1.25, "at_most": True, "of_value": False}
    assert report["traps"]["trap"]["details"] == {"rounds": 2}
    assert report["uboot"]["boot"]["skipped"] == "package u-boot-qemu is missing"
    assert report["uboot"]["boot"]["met"] is None


def test_machine_and_versions_name_what_was_measured_with() -> None:
    """Enough to compare two reports."""
    assert {"cpu", "cores", "kernel", "load"} <= set(machine())
    assert {"python", "iovirt-dist", "pyzmq", "libzmq", "msgpack", "msgspec", "unicorn"} <= set(versions())


def test_table_fits_and_shows_every_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """80 columns; what was skipped says why."""
    print_report({"traps": [RATIO, VALUE], "uboot": [SKIPPED]})

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(" ".join(lines).split())
    assert "trap : echo 120 us 100 us 1.20 <= 1.25 met" in text
    assert "read 3.50 s - - <= 3.00 s missed" in text
    assert "package u-boot-qemu is missing" in text


def test_figures_without_a_target_have_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides and their ratio are told."""
    result = Result("copy", "copy", "MiB/s", None, Figures(2.0, 2.0, 2.0), Figures(4.0, 4.0, 4.0), "other")

    print_report({"part": [result]})

    assert (result.ratio, result.met, result.as_object()["target"]) == (0.5, None, None)
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "copy",
        "2.00",
        "MiB/s",
        "4.00",
        "MiB/s",
        "0.50",
        "-",
        "-",
    ]
