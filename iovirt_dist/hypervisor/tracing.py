"""Trace points of what the hypervisor asks of its controllers."""

from __future__ import annotations

from collections.abc import Mapping

from iovirt_dist.ids import RequestId, parts_of
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.commands import unpack_commands
from iovirt_dist.wire.messages import Submit


def submit_points(controller: str, submit: Submit, owners: Mapping[int, str]) -> list[TracePoint]:
    """Return a point for each command of a batch that leaves for a controller; its number is the (first) request's.

    Args:
        controller: Where to.
        submit: The batch.
        owners: Guests by instance number.
    """
    points = []
    for command in unpack_commands(submit.commands):
        instance, queue, sequence = RequestId.unpack(command.id)
        queue, parts = parts_of(queue)
        fields: dict[str, int | str] = {
            "controller": controller,
            "instance": instance,
            "queue": queue,
            "opcode": command.opcode.name.lower(),
            "unit": command.unit,
            "offset": command.offset,
            "length": command.length,
        }
        if parts > 1:
            fields["requests"] = parts
        points.append(TracePoint(owners.get(instance, ""), sequence, "submit", fields))
    return points
