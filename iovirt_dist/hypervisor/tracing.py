"""Trace points of what the hypervisor asks of its controllers."""

from __future__ import annotations

import struct

from iovirt_dist.step import TracePoint
from iovirt_dist.wire.commands import unpack_commands
from iovirt_dist.wire.messages import Submit

_REQUEST_ID = struct.Struct("<IIQ")


def submit_points(controller: str, submit: Submit) -> list[TracePoint]:
    """Return a point for each command of a batch that leaves for a controller; its number is the request's."""
    points = []
    for command in unpack_commands(submit.commands):
        instance, queue, sequence = _REQUEST_ID.unpack(command.id)
        fields: dict[str, int | str] = {
            "controller": controller,
            "instance": instance,
            "queue": queue,
            "opcode": command.opcode.name.lower(),
            "unit": command.unit,
            "offset": command.offset,
            "length": command.length,
        }
        points.append(TracePoint("", sequence, "submit", fields))
    return points
