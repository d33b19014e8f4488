"""Trace points in a file while somebody wants them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.runtime import trace_log
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint, Tracer


class Bench:
    """A trace log, and what it told the core."""

    def __init__(self, path: Path) -> None:
        self.run_dir = RunDir(path)
        self.run_dir.create()
        self.switched: list[bool] = []
        self.log = TraceLog(self.run_dir, "hv0", self.switched.append)

    def lines(self) -> list[dict[str, Any]]:
        """The points in the file."""
        return [json.loads(line) for line in self.run_dir.trace_file("hv0").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A trace that is off."""
    return Bench(tmp_path)


def test_trace_is_off_until_its_switch_is_there_and_off_again_without_it(bench: Bench) -> None:
    """The core is told of changes, once each."""
    bench.log.poll()
    bench.run_dir.trace_switch.touch()
    bench.log.poll()
    bench.log.poll()
    bench.run_dir.trace_switch.unlink()
    bench.log.poll()

    assert bench.switched == [True, False]
    assert not bench.run_dir.trace_file("hv0").exists()


def test_trace_points_are_lines_in_order(bench: Bench) -> None:
    """Each says when, who, whose, and what."""
    tracer = Tracer("alice")
    tracer.number = 7
    tracer.point("trap", kind="port_in", address=0x1F0)
    tracer.point("trap", kind="port_out", address=0x1F7)

    for point in tracer.take():
        bench.log.add(point)
    bench.log.poll()

    first, second = bench.lines()
    assert first.pop("at_ns") <= second.pop("at_ns")
    assert first == {
        "process": "hv0", "guest": "alice", "number": 7, "event": "trap", "kind": "port_in", "address": 0x1F0
    }  # fmt: skip
    assert second["address"] == 0x1F7
    assert tracer.take() == []


def test_trace_that_overflows_says_how_many_points_are_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whatever the guests do between two looks."""
    monkeypatch.setattr(trace_log, "RING_POINTS", 2)
    bench.log = TraceLog(bench.run_dir, "hv0", bench.switched.append)

    for number in range(5):
        bench.log.add(TracePoint("alice", number, "trap", {}))
    bench.log.poll()

    assert [(line["event"], line["number"], line.get("points")) for line in bench.lines()] == [
        ("dropped", 0, 3),
        ("trap", 3, None),
        ("trap", 4, None),
    ]


def test_trace_file_that_has_grown_begins_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before it is kept."""
    monkeypatch.setattr(trace_log, "FILE_BYTES", 10)

    for number in (1, 2):
        bench.log.add(TracePoint("alice", number, "trap", {}))
        bench.log.poll()

    assert [line["number"] for line in bench.lines()] == [2]
    assert '"number":1' in (bench.run_dir.path / "trace" / "hv0.jsonl.1").read_text()
