"""Changes of a running topology's number of guests: who writes the file of `topology.scaling`, and who follows it.

Each process looks at the file with every status update, as it does for settings and for the trace's switch: no message
can be lost that way, a process that was not there catches up by itself, and it works below any process manager.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Final

import msgspec

from iovirt_dist.errors import IovirtError, LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.topology.load import host_part, load_topology
from iovirt_dist.topology.scaling import Scaling, read_scaling, scaling_path
from iovirt_dist.topology.specs import Topology

_CHANGED: Final = "the topology file was changed since the topology came up"


def write_scaling(run_dir: RunDir, expected_revision: int, scaling: Scaling) -> bool:
    """Replace the file, if it is still the one that the new one was made from.

    Args:
        run_dir: Of the running topology.
        expected_revision: Of the file that is replaced; 0 for none.
        scaling: Its content.

    Returns:
        False if somebody else was faster; nothing is changed then.

    Raises:
        LocalError: The file cannot be written.
    """
    path = scaling_path(run_dir.path)
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        lock = os.open(run_dir.path / "status", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(f"cannot be scaled: {error.strerror}", str(run_dir.path), "is the topology up?") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_scaling(run_dir.path).revision != expected_revision:
            return False
        scratch.write_bytes(msgspec.json.encode(scaling))
        scratch.replace(path)
    except OSError as error:
        raise LocalError(f"cannot be written: {error.strerror}", str(path)) from None
    finally:
        os.close(lock)
    return True


class ScalingFollower:
    """Keeps a process's view of the topology as it was scaled.

    Args:
        topology: As it was when the process started.
        apply: Takes the topology as it is now; raises `IovirtError` if it cannot follow.

    Attributes:
        topology: What is in force.
        problem: Why it is not what the file says, one line; empty if it is.
    """

    def __init__(self, topology: Topology, apply: Callable[[Topology], None]) -> None:
        self.topology = topology
        self.problem = ""
        self._apply = apply
        self._path = scaling_path(topology.run_dir)
        self._seen: tuple[int, int] | None = None

    def poll(self) -> bool:
        """Follow the file if it is another one than before; returns whether something changed."""
        try:
            stat = self._path.stat()
        except OSError:
            return False
        if (stat.st_ino, stat.st_mtime_ns) == self._seen:
            return False
        self._seen = stat.st_ino, stat.st_mtime_ns
        scaling = read_scaling(self.topology.run_dir)
        if scaling.revision <= self.topology.revision:
            return False
        try:
            self._follow(scaling)
        except IovirtError as error:
            self.problem = str(error)
            return False
        return True

    def status(self) -> dict[str, object]:
        """What a status file tells of it."""
        told: dict[str, object] = {"revision": self.topology.revision}
        return told | {"scale_problem": self.problem} if self.problem else told

    def _follow(self, scaling: Scaling) -> None:
        before = self.topology
        topology = host_part(load_topology(before.source, scaling), before.host)
        if not scaling.digest == before.digest == topology.digest:
            raise LocalError(_CHANGED, before.label, "take it down and up again")
        self._apply(topology)
        self.topology = topology
        self.problem = ""
