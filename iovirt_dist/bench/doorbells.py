"""What the doorbell path carries: requests of a driver, from its virtqueue to the medium and back.

A script guest keeps `DEPTH` requests in flight at a disk that is intercepted at the driver level; guest, hypervisor and
block controller are real processes, and the image lies in the page cache. The bare side is a relay of three processes
over the same kind of sockets, blocking, without codec, session or anything to do: it carries messages of the same
sizes, a batch of requests in each, and as many of them at once.

- Without payload: FLUSH of a disk to which nothing was written. It is the one request of a disk that moves no data and
  yet goes all the way: descriptors, doorbell, command, completion, used ring, and no system call for it at the end. So
  the figure is what descriptors cost, with nothing behind them.
- With payload: random reads of 4 KiB.
- Bandwidth: sequential reads of 1 MiB, beside 1 MiB messages that the bare relay carries both ways, of which one is
  counted (what `FIELD_NOTES` calls its bandwidth); and beside answers of 1 MiB, which is what a read is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from iovirt_dist.bench.bare import BareClient
from iovirt_dist.bench.processes import Processes
from iovirt_dist.bench.report import Result, Target
from iovirt_dist.bench.sampling import Effort, Figures, summarise
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.status import read_status
from iovirt_dist.wire.requests import COMPLETION, REQUEST

DEPTH = 64
"""Requests in flight."""
BATCH = 64
"""Requests that a doorbell carries: all. With halves two processes would work at a time, but a message costs more than
that brings."""
STREAM_DEPTH = 4
SECONDS = 1.0
RESULT_WITHIN_S = 30.0

_MIB = 1 << 20
_BLOCK_BYTES = 4096
_HEADER_BYTES = 16
_EXTENT_BYTES = 32 * _MIB
_COMMON = 'kind = "script"\nhypervisor = "hv0"\nmemory = "16MiB"\nscript = "iovirt_dist.guest.script.load:main"\n'
_IN_BATCHES = f"parameters.depth = {DEPTH}\nparameters.batch = {BATCH}\nparameters.doorbell = {BATCH}\n"
GUESTS = {
    "flush": f'parameters.request = "flush"\n{_IN_BATCHES}',
    "read": f'parameters.block = "4KiB"\n{_IN_BATCHES}',
    "stream": f'parameters.block = "1MiB"\nparameters.depth = {STREAM_DEPTH}\nparameters.pattern = "sequential"\n',
}
"""Loads by guest; each has an extent of its own."""


def topology(seconds: float) -> str:
    """A guest for each load of so many seconds, one disk and one hypervisor for all."""
    parts = [
        '[topology]\nname = "bench-doorbells"\nrun_dir = "run"\n[hypervisor.hv0]',
        f'[controller.disk0]\nkind = "block"\nimage = "disk.img"\nsize = {len(GUESTS) * _EXTENT_BYTES}',
    ]
    for at, name in enumerate(GUESTS):
        parts.append(f"[controller.disk0.extents.{name}]\noffset = {at * _EXTENT_BYTES}\nsize = {_EXTENT_BYTES}")
    for name, parameters in GUESTS.items():
        parts.append(f'[guest.{name}]\n{_COMMON}devices.disk = "disk0/{name}"\nparameters.seconds = {seconds}')
        parts.append(parameters)
    return "\n".join(parts)


class Traffic(NamedTuple):
    """What the bare relay carries.

    Attributes:
        out_bytes: Of a message.
        back_bytes: Of its answer.
        in_flight: Messages at once.
    """

    out_bytes: int
    back_bytes: int
    in_flight: int


_ENTRIES_OUT = BATCH * (REQUEST.size + _HEADER_BYTES)
_ENTRIES_BACK = BATCH * COMPLETION.size
BARE = {
    "flush": Traffic(_ENTRIES_OUT, _ENTRIES_BACK, DEPTH // BATCH),
    "read": Traffic(_ENTRIES_OUT, _ENTRIES_BACK + BATCH * _BLOCK_BYTES, DEPTH // BATCH),
    "stream": Traffic(_MIB, _MIB, STREAM_DEPTH),
    "answers": Traffic(_ENTRIES_OUT, _MIB, STREAM_DEPTH),
}


def measure_doorbells(effort: Effort, tell: Callable[[str], None], seconds: float = SECONDS) -> list[Result]:
    """Measure all loads in one topology, in turns with the bare side.

    Args:
        effort: Its rounds.
        tell: Gets a line of progress.
        seconds: Of each load and of each turn of the bare side.

    Raises:
        LocalError: A process does not do what it should.
    """
    ours: dict[str, list[float]] = {name: [] for name in GUESTS}
    bare: dict[str, list[float]] = {name: [] for name in BARE}
    messages: list[float] = []
    with Processes(topology(seconds)) as ring:
        (ring.folder / "disk.img").write_bytes(os.urandom(len(GUESTS) * _EXTENT_BYTES))
        ring.start("disk0", "hv0")
        ring.start_bare("relay", "relay", ring.endpoint("relay"), ring.endpoint("answer"))
        ring.start_bare("answer", "answer", ring.endpoint("answer"))
        client = BareClient(ring.endpoint("relay"))
        try:
            for number in range(effort.rounds):
                tell(f"doorbells: round {number + 1} of {effort.rounds}")
                for name in GUESTS:
                    results, per_request = _load(ring, name)
                    ours[name].append(results["mib_per_s" if name == "stream" else "iops"])
                    if name == "read":
                        messages.append(DEPTH * per_request)
                for name, traffic in BARE.items():
                    per_message = BATCH if name in ("flush", "read") else 1
                    bare[name].append(client.messages_per_s(*traffic, seconds) * per_message)
        finally:
            client.close()
    return _results(ours, bare, messages)


def _results(ours: dict[str, list[float]], bare: dict[str, list[float]], messages: list[float]) -> list[Result]:
    """Targets for requests are for the rates themselves, for bandwidth relative; both sides are told either way."""
    flush, read, stream = (_figures(ours[name]) for name in GUESTS)
    bandwidth, most_messages = Target(0.70, at_most=False), Target(DEPTH / 4)
    rows = (
        ("flush", f"no payload, depth {DEPTH}", "IOPS", Target(150_000, at_most=False, of_value=True), flush),
        ("read", f"4 KiB reads, depth {DEPTH}", "IOPS", Target(60_000, at_most=False, of_value=True), read),
        ("stream", "1 MiB reads", "MiB/s", bandwidth, stream),
        ("answers", "1 MiB reads, one way", "MiB/s", bandwidth, stream),
    )
    results = [Result(f"doorbell_{row[0]}", *row[1:], _figures(bare[row[0]]), "relay") for row in rows]
    return [
        *results,
        Result("doorbell_messages", f"messages of {DEPTH} reads", "", most_messages, _figures(messages)),
    ]


def _figures(rates: list[float]) -> Figures:
    return summarise([[rate] for rate in rates])


def _load(ring: Processes, guest: str) -> tuple[dict[str, Any], float]:
    """Let a guest load its disk; returns its results, and the messages on all links by request."""
    before = _traffic(ring, guest)
    ring.start(guest)
    found: dict[str, Any] = {}

    def published() -> bool:
        status = read_status(ring.run_dir).get(guest)
        found.update(status.content.get("results", {}) if status is not None else {})
        return bool(found)

    ring.wait_for(published, f"the results of guest '{guest}'", RESULT_WITHIN_S)
    ended_ns = time.time_ns()
    ring.wait_for(lambda: read_status(ring.run_dir)["hv0"].updated_ns > ended_ns, "the hypervisor's status", 5.0)
    after = _traffic(ring, guest)
    ring.stop(guest)
    if found["failed"] or not found["requests"]:
        raise LocalError(f"the disk failed: {found}", guest)
    return found, (after[0] - before[0]) / max(after[1] - before[1], 1)


def _traffic(ring: Processes, guest: str) -> tuple[int, int]:
    """Messages with and for a guest so far, in its present life those to it and from it, and requests of its disk."""
    content = read_status(ring.run_dir)["hv0"].content
    pairs = content["controllers"].values()
    own = content["guests"][guest]
    messages = own["messages_in"] + own["messages_out"] + sum(2 * pair["batches"] for pair in pairs)
    return messages, sum(pair["submitted"] for pair in pairs)
