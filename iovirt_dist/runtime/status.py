"""Status files: what each process says about itself, for ``iovirt ps`` and the demo.

A status file is replaced atomically, so a reader sees the old or the new one and never half of one. A reader trusts
nothing in it: a process that was killed could not say so, hence the check of process number *and* start time (numbers
are used again).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import msgspec

from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir

MIN_INTERVAL_NS: Final = 500_000_000
"""At most two writes a second, except forced ones."""


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is none or it is a zombie.

    Source: proc(5), /proc/PID/stat, fields 3 (state) and 22 (starttime); field 2 may hold spaces and parentheses.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One status file.

    Attributes:
        name: The process.
        kind: Process type; ``supervisor`` for the supervisor's own.
        pid: Process number.
        start_ticks: Start time, to tell this process from a later one of the same number.
        state: One word: ``starting``, ``waiting``, ``running``, ``stopped``, ``failed`` or what the process likes.
        reason: Why it is in that state; may be empty.
        epoch: Which life of the process this is.
        started_ns: Wall clock (Unix time) when it was started.
        updated_ns: Wall clock (Unix time) of this write.
        content: Everything else that the process tells: counters, guests, controllers, peers.
    """

    name: str
    kind: str = ""
    pid: int = 0
    start_ticks: int = 0
    state: str = ""
    reason: str = ""
    epoch: int = 0
    started_ns: int = 0
    updated_ns: int = 0
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote this exists now."""
        return self.pid > 0 and start_ticks(self.pid) == self.start_ticks


_KNOWN: Final = tuple(entry.name for entry in fields(ProcessStatus) if entry.name != "content")


class StatusWriter:
    """Writes one process's status file.

    What a life that was killed in the middle of a write has left behind, the next one writes over: the name of the
    unfinished file is the same in all lives, and only one of them at a time has the process's name.

    Args:
        run_dir: Where; must exist.
        name: The process.
        kind: Its type.
        epoch: Which life of it this is.
        started_ns: Wall clock (Unix time) now.
    """

    def __init__(self, run_dir: RunDir, name: str, kind: str, epoch: int, started_ns: int) -> None:
        self._path = run_dir.status(name)
        self._scratch = self._path.with_name(f"{self._path.name}.tmp")
        pid = os.getpid()
        self._fixed = {
            "name": name,
            "kind": kind,
            "pid": pid,
            "start_ticks": start_ticks(pid) or 0,
            "epoch": epoch,
            "started_ns": started_ns,
        }
        self._written_ns = -MIN_INTERVAL_NS
        self._encoder = msgspec.json.Encoder()

    def due(self, now_ns: int) -> bool:
        """Whether `update` would write now: ask before gathering counters."""
        return now_ns - self._written_ns >= MIN_INTERVAL_NS

    def update(self, now_ns: int, *, force: bool = False, **content: Any) -> bool:
        """Replace the file, at most twice a second.

        Args:
            now_ns: Wall clock (Unix time).
            force: Write even if the last write was just now: for changes of state and at exit.
            content: ``state``, ``reason`` and whatever else is worth telling; JSON values.

        Returns:
            Whether the file was written.
        """
        if not force and not self.due(now_ns):
            return False
        self.put(self.encode(now_ns, **content))
        return True

    def encode(self, now_ns: int, **content: Any) -> bytes:
        """Return what `put` writes; see `update`."""
        self._written_ns = now_ns
        return self._encoder.encode({**self._fixed, "updated_ns": now_ns, **content})

    def put(self, data: bytes) -> None:
        """Replace the file. May wait for the medium: ext4 writes out what replaces another file (auto_da_alloc)."""
        self._scratch.write_bytes(data)
        self._scratch.replace(self._path)

    def remove(self) -> None:
        """Remove the file, and an unfinished one: the process ends in order and leaves nothing."""
        self._path.unlink(missing_ok=True)
        self._scratch.unlink(missing_ok=True)


def read_status_file(path: Path) -> ProcessStatus | None:
    """Read one status file; None if it is absent or no status file."""
    try:
        return parse_status(path.read_bytes())
    except OSError:
        return None


def parse_status(data: bytes) -> ProcessStatus | None:
    """Check a status file's content; None if it is none."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
        known = {key: raw.pop(key) for key in _KNOWN if key in raw}
        return msgspec.convert({**known, "content": raw}, ProcessStatus)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_status(run_dir: RunDir) -> dict[str, ProcessStatus]:
    """Read what all processes said last, by name; ask `ProcessStatus.alive` whether it still holds."""
    files = sorted(run_dir.path.glob("status/*.json"))
    statuses = (read_status_file(path) for path in files if path.stem != SUPERVISOR)
    return {status.name: status for status in statuses if status is not None}
