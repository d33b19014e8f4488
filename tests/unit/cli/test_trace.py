"""Trace files, merged and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.cli.trace import Selection, format_point, parse_point, read_points

TOPOLOGY = """
[topology]
run_dir = "run"
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "disk.img"
size = "1MiB"
[controller.tty0]
kind = "console"
[guest.alice]
kind = "machine"
hypervisor = "hv0"
image = "bundled:guestos"
devices.disk = "disk0"
devices.console = "tty0"
"""


def point(at_ns: int, process: str, event: str, guest: str = "", number: int = 1, **fields: Any) -> dict[str, Any]:
    """A trace point as a file has it."""
    return {"at_ns": at_ns, "process": process, "guest": guest, "number": number, "event": event, **fields}


RAISE = point(10, "alice", "raise", "alice", 47, kind="port_out", address=0x1F7)
SUBMIT = point(20, "hv0", "submit", "alice", 1, instance=3, opcode="read")
TRAP = point(21, "hv0", "trap", "alice", 47, device="ata")
COMMAND = point(30, "disk0", "command", "", 1, hypervisor="hv0", instance=3)
OTHER = point(31, "disk0", "command", "", 1, hypervisor="hv1", instance=3)


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """A topology that was traced and is down; returns its file."""
    folder = tmp_path / "run" / "trace"
    folder.mkdir(parents=True)
    for process, points in {"alice": [RAISE], "hv0": [SUBMIT, TRAP], "disk0": [COMMAND, OTHER]}.items():
        (folder / f"{process}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in points))
    file = tmp_path / "t.toml"
    file.write_text(TOPOLOGY)
    return file


def shown(topology: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """Run the command; returns the lines of stdout, which it must have ended well."""
    assert main(["trace", *options, "--file", str(topology)]) == 0
    return capsys.readouterr().out.splitlines()


def test_trace_files_are_merged_by_time_and_what_was_put_aside_comes_first(tmp_path: Path) -> None:
    """A file that grew too long has a predecessor; one may be absent."""
    (tmp_path / "a.jsonl.1").write_text(json.dumps(point(1, "a", "old")) + "\n")
    (tmp_path / "a.jsonl").write_text(json.dumps(point(3, "a", "new")) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(point(2, "b", "between")) + "\n")

    points = read_points([tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "absent.jsonl"])

    assert [each["event"] for each in points] == ["old", "between", "new"]


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"at_ns": 1}', json.dumps(point(1, "a", "b"))[:-4]])
def test_line_that_is_no_point_is_skipped(line: str) -> None:
    """The last one may be half written."""
    assert parse_point(line) is None


def test_format_point_is_aligned_and_has_addresses_in_hexadecimal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a guest put into a field cannot steer the terminal."""
    hostile = point(1_500_000_000, "hv0", "system_call", "alice", 5, file="/dev/\x1b[2J", caller=4096)

    line = format_point(hostile, (5, 7))

    assert line[line.index(".") :] == ".500000 hv0   alice         5 system_call file=/dev/�[2J caller=0x1000"


def test_selection_gives_a_controllers_points_to_the_guest_of_the_submit() -> None:
    """Another hypervisor's instance of the same number is somebody else."""
    points = [dict(each) for each in (RAISE, SUBMIT, TRAP, COMMAND, OTHER)]

    chosen = list(Selection("alice").take(points))

    assert [each["event"] for each in chosen] == ["raise", "submit", "trap", "command"]
    assert chosen[-1]["guest"] == "alice"


def test_selection_tells_instances_of_two_hypervisors_apart() -> None:
    """Each counts its own."""
    theirs = point(22, "hv1", "submit", "bob", 1, instance=3)

    chosen = [dict(each) for each in (SUBMIT, theirs, COMMAND, OTHER)]

    assert [each["guest"] for each in Selection().take(chosen)] == ["alice", "bob", "alice", "bob"]


def test_trace_shows_all_points_in_the_order_of_time(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each: process, guest, number, event."""
    lines = shown(topology, capsys)

    assert [line.split()[1:5] for line in lines] == [
        ["alice", "alice", "47", "raise"],
        ["hv0", "alice", "1", "submit"],
        ["hv0", "alice", "47", "trap"],
        ["disk0", "alice", "1", "command"],
        ["disk0", "-", "1", "command"],
    ]


def test_trace_of_a_guest_and_number_is_that_traps_path(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the CPU to the hypervisor."""
    lines = shown(topology, capsys, "alice", "--number", "47")

    assert [line.split()[4] for line in lines] == ["raise", "trap"]


def test_trace_json_is_one_object_with_the_last_points(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And whether tracing goes on."""
    told = json.loads("\n".join(shown(topology, capsys, "alice", "--json", "--lines", "2")))

    assert told["tracing"] is False
    assert [each["event"] for each in told["points"]] == ["trap", "command"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--on", "--off"], 2, "--on and --off contradict each other"),
        (["-n", "-1"], 2, 'Invalid value "-1" for -n. Must be >= 0'),
        (["bob"], 2, "no guest 'bob'; guests: alice"),
        (["--on"], 1, "nothing is up"),
        (["--off"], 0, "tracing is off"),
    ],
)
def test_trace_of_a_topology_that_is_down(
    options: list[str], code: int, message: str, topology: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong."""
    result = main(["trace", *options, "--file", str(topology)])

    captured = capsys.readouterr()
    assert result == code
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
