"""Trace points of a controller: commands that came, and their completions."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from iovirt_dist.ids import parts_of
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.commands import Command, Completion

_REQUEST_ID = struct.Struct("<IIQ")


def command_points(hypervisor: str, commands: Sequence[Command]) -> list[TracePoint]:
    """Return a point for each command of a batch; guest and number are the requester's, the guest's name is not known.

    Args:
        hypervisor: Who sent them.
        commands: In their order.
    """
    points = []
    for command in commands:
        fields, sequence = _identity(hypervisor, command.id)
        fields |= {"opcode": command.opcode.name.lower(), "unit": command.unit}
        fields |= {"offset": command.offset, "length": command.length}
        points.append(TracePoint("", sequence, "command", fields))
    return points


def completion_points(hypervisor: str, completions: Sequence[Completion]) -> list[TracePoint]:
    """Return a point for each completion of a batch; arguments as in `command_points`."""
    points = []
    for completion in completions:
        fields, sequence = _identity(hypervisor, completion.id)
        fields |= {"status": completion.status.name.lower(), "length": completion.length}
        points.append(TracePoint("", sequence, "completion", fields))
    return points


def _identity(hypervisor: str, id_: bytes) -> tuple[dict[str, int | str], int]:
    instance, queue, sequence = _REQUEST_ID.unpack(id_)
    queue, parts = parts_of(queue)
    fields: dict[str, int | str] = {"hypervisor": hypervisor, "instance": instance, "queue": queue}
    return fields | {"requests": parts} if parts > 1 else fields, sequence
