"""What a hypervisor knew of a request, from the trace points that it emitted where it intercepted the guest.

Theory of operation. The job's requests are the truth. Each trace point of the disk's interception claims something: at
the operation level an access to a register of a device, in one direction; at the driver level a request of a block
device; at the system-call level a process's call on a file. The points are shared out among the requests by the bytes
that they move, backwards from the last one; what moves none (a register, a status) belongs to the request behind it.

A request is *known* in one respect if what its points claim there is right: all of them that claim anything, and at
least one does. It is *reconstructed* if not, but the commands that left for the controller have it right: then the
virtual device has put it together from many points, by its own copy of the controller's rules, and the interception
knew nothing of it. Else it is *lost*. Besides, of all points it is counted how many are right alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from iovirt_dist.compare.job import DISK_FILE, JobRequest
from iovirt_dist.errors import LocalError
from iovirt_dist.platform.level import Level

ASPECTS: Final = (
    "device",
    "direction",
    "sector_range",
    "request_boundary",
    "process",
    "file",
    "file_offset",
)
KNOWN, RECONSTRUCTED, PARTLY, LOST = "known", "reconstructed", "partly", "lost"

Point = Mapping[str, Any]
"""One line of a trace file."""

_MOVING: Final = frozenset({"read", "write"})
_READING: Final = frozenset({"port_in", "mmio_load"})
_BLOCK_TYPES: Final = {"in": "read", "out": "write"}


class Claim(NamedTuple):
    """What one point says of the disk; None where it says nothing.

    Attributes:
        device: Whether it names the disk.
        direction: ``read`` or ``write``.
        range: First byte and end of what is moved.
        process: Who asks.
        file: In which file.
        file_offset: Where in it.
        moved: Bytes that move with it.
    """

    device: bool = True
    direction: str | None = None
    range: tuple[int, int] | None = None
    process: int | None = None
    file: str | None = None
    file_offset: int | None = None
    moved: int = 0


class Known(NamedTuple):
    """One aspect, over all requests.

    Attributes:
        requests: How many there were.
        known: How many were known rightly at the interception.
        reconstructed: How many others the virtual device reconstructed rightly.
        points: Points of the requests.
        points_right: How many of them tell it rightly, each alone.
    """

    requests: int
    known: int
    reconstructed: int
    points: int
    points_right: int

    @property
    def verdict(self) -> str:
        """One word."""
        if self.known == self.requests:
            return KNOWN
        if self.known + self.reconstructed == self.requests:
            return RECONSTRUCTED
        return PARTLY if self.known + self.reconstructed else LOST

    def as_json(self) -> dict[str, Any]:
        """The counts and the verdict."""
        return {"verdict": self.verdict, **self._asdict()}


@dataclass(slots=True)
class _Evidence:
    """All about one request: its points' claims, and the commands that left for the controller."""

    request: JobRequest
    claims: list[Claim] = field(default_factory=list)
    commands: list[Point] = field(default_factory=list)


def claim_of(level: Level, point: Point, disk: str | int) -> Claim | None:
    """Read a trace point as a claim about the disk.

    Args:
        level: Where the disk is intercepted.
        point: Any point.
        disk: What points of this level call the disk: a device's name, a virtio device's number, a file's path.

    Returns:
        None if it is no interception of the disk.
    """
    event = point["event"]
    if level is Level.OPERATION and event == "trap" and point["device"] == disk:
        # The data register is the only one of the channel that is wider than a byte (ATA/ATAPI-6, section 7).
        moved = point["width"] * point["count"] if point["width"] > 1 else 0
        return Claim(direction="read" if point["kind"] in _READING else "write", moved=moved)
    if level is Level.DRIVER and event == "block" and point["type"] in _BLOCK_TYPES:
        start, length = point["offset"], point["length"]
        direction = _BLOCK_TYPES[point["type"]]
        return Claim(point["device"] == disk, direction, (start, start + length), moved=length)
    if level is Level.SYSCALL and event == "system_call" and point["direction"] in _MOVING:
        start, length, file = point["offset"], point["length"], point["file"]
        on_disk = file == disk  # the disk's own file, so places in it are places on the disk
        place = (start, start + length) if on_disk else None
        return Claim(on_disk, point["direction"], place, point["caller"], file, start, length)
    return None


def knowledge_of(
    level: Level, points: Iterable[Point], requests: Sequence[JobRequest], disk: str | int, controller: str
) -> dict[str, Known]:
    """Judge what was known of each request.

    Args:
        level: Where the disk was intercepted.
        points: The hypervisor's trace, in order.
        requests: The truth, in order.
        disk: See `claim_of`.
        controller: Where the disk's commands go.

    Returns:
        By aspect, in the order of `ASPECTS`.

    Raises:
        LocalError: The commands that reached the controller are not the requests, or points are missing.
    """
    points = list(points)
    evidence = [_Evidence(request) for request in requests]
    commands = [
        point
        for point in points
        if point["event"] == "submit" and point["controller"] == controller and point["opcode"] in _MOVING
    ]
    _share_commands(evidence, commands)
    _share_claims(evidence, [claim for point in points if (claim := claim_of(level, point, disk)) is not None])
    owners = _owners(evidence)
    return {aspect: _judge(aspect, evidence, owners) for aspect in ASPECTS}


def _share_commands(evidence: Sequence[_Evidence], commands: Sequence[Point]) -> None:
    """Give each request its commands; together they must be exactly the requests."""
    left = iter(commands)
    for item in evidence:
        at, request = item.request.offset, item.request
        while at < request.end:
            command = next(left, None)
            if command is None or command["opcode"] != request.direction or command["offset"] != at:
                raise LocalError(f"expected a {request.direction} at {at}, not {command}", "commands of the traced job")
            item.commands.append(command)
            at += command["length"]
        if at != request.end:
            raise LocalError(
                f"a command ends at {at}, the job's request at {request.end}", "commands of the traced job"
            )
    if (command := next(left, None)) is not None:
        raise LocalError(f"nobody asked for {command}", "commands of the traced job")


def _share_claims(evidence: Sequence[_Evidence], claims: list[Claim]) -> None:
    """Give each request its claims, by the bytes that they move."""
    at = len(claims)
    for item in reversed(evidence):
        missing, end = item.request.length, at
        while at and (missing or not claims[at - 1].moved):
            at -= 1
            missing -= claims[at].moved
        if missing:
            raise LocalError(f"{missing} bytes of {item.request} left no trace", "traced job")
        item.claims = claims[at:end]


def _owners(evidence: Sequence[_Evidence]) -> dict[int, int]:
    """Which run of the program each process stands for; processes that stand for more than one, for none."""
    runs: dict[int, set[int]] = {}
    for item in evidence:
        for claim in item.claims:
            if claim.process:
                runs.setdefault(claim.process, set()).add(item.request.run)
    return {process: found.pop() for process, found in runs.items() if len(found) == 1}


def _judge(aspect: str, evidence: Sequence[_Evidence], owners: Mapping[int, int]) -> Known:
    known = reconstructed = points = right = 0
    for item in evidence:
        answers = [_is_right(aspect, claim, item, owners) for claim in item.claims]
        spoken = [answer for answer in answers if answer is not None]
        points += len(answers)
        right += spoken.count(True)
        if spoken and all(spoken) and _is_whole(aspect, item):
            known += 1
        else:
            reconstructed += _is_reconstructed(aspect, item)
    return Known(len(evidence), known, reconstructed, points, right)


def _is_right(aspect: str, claim: Claim, item: _Evidence, owners: Mapping[int, int]) -> bool | None:
    """Whether a claim is right; None if it says nothing of the aspect."""
    request, (start, end) = item.request, claim.range or (0, 0)
    told: dict[str, tuple[object, bool]] = {
        "device": (claim.device, claim.device),
        "direction": (claim.direction, claim.direction == request.direction),
        "sector_range": (claim.range, request.offset <= start < end <= request.end),
        "request_boundary": (claim.range, (start, end) == (request.offset, request.end)),
        "process": (claim.process, owners.get(claim.process or 0) == request.run),
        "file": (claim.file, claim.file == DISK_FILE),
        "file_offset": (claim.file_offset, request.offset <= (claim.file_offset or 0) < request.end),
    }
    said, right = told[aspect]
    return None if said is None else right


def _is_whole(aspect: str, item: _Evidence) -> bool:
    """Whether claims, each right as far as it goes, together say everything."""
    if aspect != "sector_range":
        return True
    at = item.request.offset
    for start, end in sorted(claim.range for claim in item.claims if claim.range):
        if start != at:
            return False
        at = end
    return at == item.request.end


def _is_reconstructed(aspect: str, item: _Evidence) -> bool:
    """Whether the commands say it; that they are right is known already."""
    if aspect == "request_boundary":
        return len(item.commands) == 1
    return aspect in ("direction", "sector_range")
