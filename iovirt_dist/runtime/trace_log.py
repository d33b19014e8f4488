"""A process's trace points in a file, for as long as somebody wants them.

The switch is a file in the run directory (`RunDir.trace_switch`), looked at with every status update, so that tracing
goes on and off in all processes of a topology without a channel of its own. What happens between two looks waits in a
bounded ring; beyond it the oldest points are dropped, and that is told in the file as a point of its own.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable

from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.step import TracePoint

RING_POINTS = 262_144
"""Points that wait for the next look."""

FILE_BYTES = 64 << 20
"""Size at which a process's file begins anew; the one before it is kept with ``.1`` behind its name."""


class TraceLog:
    """Trace points of one process.

    Args:
        run_dir: Where the switch and the files are.
        name: The process.
        switch: Tells the core whether to make points.

    Attributes:
        on: Whether points are made now.
    """

    def __init__(self, run_dir: RunDir, name: str, switch: Callable[[bool], None]) -> None:
        self.on = False
        self._run_dir = run_dir
        self._name = name
        self._switch = switch
        self._ring: deque[tuple[int, TracePoint]] = deque(maxlen=RING_POINTS)
        self._dropped = 0

    def add(self, point: TracePoint) -> None:
        """Keep a point until the next `poll`; the time is the wall clock's, so that processes can be compared."""
        self._dropped += len(self._ring) == RING_POINTS
        self._ring.append((time.time_ns(), point))

    def poll(self) -> None:
        """Follow the switch, and write what came since the last time."""
        wanted = self._run_dir.trace_switch.exists()
        if self._ring:
            self._write()
        if wanted != self.on:
            self.on = wanted
            self._switch(wanted)

    def _write(self) -> None:
        """Write the ring; what the file system does not take is dropped."""
        path = self._run_dir.trace_file(self._name)
        ring = [self._ring.popleft() for _ in range(len(self._ring))]  # another thread may be adding
        dropped, self._dropped = self._dropped, 0
        try:
            if path.is_file() and path.stat().st_size > FILE_BYTES:
                path.rename(path.with_name(f"{path.name}.1"))
            with path.open("a", encoding="utf-8") as file:
                if dropped:
                    file.write(self._line(ring[0][0], TracePoint("", 0, "dropped", {"points": dropped})))
                file.writelines(self._line(at_ns, point) for at_ns, point in ring)
        except OSError:
            self._dropped += dropped + len(ring)

    def _line(self, at_ns: int, point: TracePoint) -> str:
        head = {"at_ns": at_ns, "process": self._name, "guest": point.guest, "number": point.number}
        return json.dumps({**head, "event": point.event, **point.fields}, separators=(",", ":")) + "\n"
