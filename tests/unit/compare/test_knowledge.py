"""What trace points tell rightly of the requests behind them."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.compare.job import JobRequest
from iovirt_dist.compare.knowledge import ASPECTS, KNOWN, LOST, PARTLY, RECONSTRUCTED, Known, knowledge_of
from iovirt_dist.errors import LocalError
from iovirt_dist.platform.level import Level

READS = [JobRequest(0, "read", 0, 1024), JobRequest(1, "read", 1024, 1024)]


def submit(offset: int, length: int = 1024, opcode: str = "read", controller: str = "disk0") -> dict[str, Any]:
    """A command that left for a controller."""
    return {"event": "submit", "controller": controller, "opcode": opcode, "offset": offset, "length": length}


def port(kind: str, width: int = 1, count: int = 1, device: str = "ata") -> dict[str, Any]:
    """An access to a register."""
    return {"event": "trap", "kind": kind, "width": width, "count": count, "device": device}


def block(offset: int, length: int = 1024, type_: str = "in", device: int = 0) -> dict[str, Any]:
    """A request of a virtio disk."""
    return {"event": "block", "device": device, "type": type_, "offset": offset, "length": length}


def call(offset: int, caller: int, length: int = 1024, file: str = "/dev/vda") -> dict[str, Any]:
    """A system call."""
    point = {"event": "system_call", "caller": caller, "file": file, "offset": offset, "length": length}
    return point | {"direction": "read"}


def ata(offset: int) -> list[dict[str, Any]]:
    """READ SECTORS of two sectors: a register, the command, two strings."""
    return [port("port_out"), submit(offset), port("port_out"), port("port_in"), *[port("port_in", 2, 256)] * 2]


def verdicts(known: dict[str, Known]) -> dict[str, str]:
    """The verdict of each aspect."""
    return {aspect: each.verdict for aspect, each in known.items()}


def test_operation_level_knows_the_device_and_reconstructs_the_rest() -> None:
    """No trap tells a range, and a request's registers are written while its data is read."""
    points = [submit(0, 3, "identify"), port("port_in", 2, 256), *ata(0), port("port_out", device="pic"), *ata(1024)]

    known = knowledge_of(Level.OPERATION, points, READS, "ata", "disk0")

    assert tuple(known) == ASPECTS
    assert known["device"] == Known(2, 2, 0, 10, 10)
    assert known["direction"] == Known(2, 0, 2, 10, 6)
    assert known["sector_range"] == Known(2, 0, 2, 10, 0)
    assert known["request_boundary"] == Known(2, 0, 2, 10, 0)
    assert {known[aspect].verdict for aspect in ("process", "file", "file_offset")} == {LOST}


def test_operation_level_request_of_two_commands_has_lost_its_boundary() -> None:
    """The virtual device sees two commands where the program asked once."""
    points = [port("port_out"), submit(0, 512), port("port_in", 2, 256), submit(512, 512), port("port_in", 2, 256)]

    known = knowledge_of(Level.OPERATION, points, READS[:1], "ata", "disk0")

    assert verdicts(known)["sector_range"] == RECONSTRUCTED
    assert verdicts(known)["request_boundary"] == LOST


def test_driver_level_knows_requests_and_nobody_who_asked() -> None:
    """Device, direction, range and boundary; flushes and identification are no transfers."""
    points = [block(0), submit(0), block(0, 0, "flush"), submit(0, 0, "flush"), submit(1024), block(1024)]

    known = knowledge_of(Level.DRIVER, points, READS, 0, "disk0")

    assert verdicts(known) == dict(zip(ASPECTS, [KNOWN] * 4 + [LOST] * 3, strict=True))


def test_driver_level_request_in_two_parts_is_known_but_for_its_boundary() -> None:
    """A driver may divide what a program asks for at once."""
    points = [submit(0, 512), block(0, 512), submit(512, 512), block(512, 512)]

    known = knowledge_of(Level.DRIVER, points, READS[:1], 0, "disk0")

    assert verdicts(known)["sector_range"] == KNOWN
    assert known["request_boundary"] == Known(1, 0, 0, 2, 0)


def test_driver_level_that_tells_one_half_twice_does_not_know_the_range() -> None:
    """Each point is right alone, and together they leave something out."""
    points = [submit(0, 512), block(0, 512), submit(512, 512), block(0, 512)]

    known = knowledge_of(Level.DRIVER, points, READS[:1], 0, "disk0")

    assert known["sector_range"] == Known(1, 0, 1, 2, 2)


def test_driver_level_point_that_is_wrong_is_not_known() -> None:
    """Another device, the other direction, another place: the commands are right, the points are not."""
    points = [submit(0), block(0, device=1), submit(1024), block(2048, type_="out")]

    known = knowledge_of(Level.DRIVER, points, READS, 0, "disk0")

    assert known["device"] == Known(2, 1, 0, 2, 1)
    assert known["device"].verdict == PARTLY
    assert known["direction"] == Known(2, 1, 1, 2, 1)
    assert known["sector_range"] == Known(2, 1, 1, 2, 1)


def test_syscall_level_knows_everything() -> None:
    """Two runs of the program are two callers."""
    points = [submit(0), call(0, 7), submit(1024), call(1024, 9)]

    known = knowledge_of(Level.SYSCALL, points, READS, "/dev/vda", "disk0")

    assert verdicts(known) == dict.fromkeys(ASPECTS, KNOWN)


def test_syscall_level_with_one_caller_for_two_processes_does_not_know_them() -> None:
    """A number that everybody has tells nothing."""
    points = [submit(0), call(0, 7), submit(1024), call(1024, 7)]

    known = knowledge_of(Level.SYSCALL, points, READS, "/dev/vda", "disk0")

    assert known["process"].verdict == LOST


def test_knowledge_of_commands_that_are_not_the_jobs_is_refused() -> None:
    """Another place, another length, one too many, none."""
    wrong = [[submit(512), block(0)], [submit(0, 2048), block(0)], [submit(0), submit(0), block(0)], [block(0)]]

    for points in wrong:
        with pytest.raises(LocalError, match="commands of the traced job"):
            knowledge_of(Level.DRIVER, points, READS[:1], 0, "disk0")


def test_knowledge_of_a_trace_with_a_gap_is_refused() -> None:
    """Points were lost: nothing can be said."""
    with pytest.raises(LocalError, match="left no trace"):
        knowledge_of(Level.DRIVER, [submit(0), submit(1024), block(1024)], READS, 0, "disk0")


def test_knowledge_of_a_request_that_writes_counts_the_data_before_the_command() -> None:
    """ATA data goes out before the command leaves: it is shared out by bytes, not by commands."""
    requests = [READS[0], JobRequest(0, "write", 0, 1024)]
    points = [*ata(0), port("port_out"), *[port("port_out", 2, 256)] * 2, submit(0, opcode="write")]

    known = knowledge_of(Level.OPERATION, points, requests, "ata", "disk0")

    assert known["direction"] == Known(2, 1, 1, 8, 6)
