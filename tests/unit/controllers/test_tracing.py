"""Trace points of a controller."""

from __future__ import annotations

from iovirt_dist.controllers.tracing import command_points, completion_points
from iovirt_dist.ids import RequestId
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status

ID = RequestId(3, 1, 77)
IDENTITY: dict[str, int | str] = {"hypervisor": "hv0", "instance": 3, "queue": 1}


def test_command_point_has_the_requests_number_and_what_is_asked_for() -> None:
    """The id is the one of the hypervisor's submit point."""
    points = command_points("hv0", [Command(ID.pack(), Opcode.READ, 2, 4096, 512)])

    fields = {**IDENTITY, "opcode": "read", "unit": 2, "offset": 4096, "length": 512}
    assert points == [TracePoint("", 77, "command", fields)]


def test_completion_point_has_the_requests_number_and_the_outcome() -> None:
    """Status by name."""
    points = completion_points("hv0", [Completion(ID.pack(), Status.OUT_OF_RANGE, 0)])

    assert points == [TracePoint("", 77, "completion", {**IDENTITY, "status": "out_of_range", "length": 0})]
