"""Script guests that load one block controller together, and what each of them does in the same stretches of time.

Each guest is a process with an extent of its own, and keeps its requests in flight until it is stopped. It publishes
how many were done in each window (`guest.script.load`); windows are the same for all guests, as they are aligned on the
host's clock, so rates of guests can be added and compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple

from iovirt_dist.bench.processes import Processes
from iovirt_dist.errors import LocalError
from iovirt_dist.platform.qos import Qos
from iovirt_dist.runtime.qos_file import change_settings
from iovirt_dist.runtime.status import ProcessStatus, read_status_file

EXTENT_BYTES = 1 << 20
MEMORY = "32MiB"
"""RAM of each guest, as a topology gives it by default."""
READY_WITHIN_S = 120.0
LOOK_EVERY_S = 0.05
_LATE_S = 15.0
"""What a window may take to be published beyond its length."""
_FOR_EVER: Final[dict[str, float | str]] = {"seconds": 3600.0, "warm_up_seconds": 0.0}
_COMMON = f"""
kind = "script"
hypervisor = "hv0"
memory = "{MEMORY}"
script = "iovirt_dist.guest.script.load:main"
"""


class Member(NamedTuple):
    """One guest of the fleet.

    Attributes:
        parameters: Of its load, beyond the defaults; it goes on for ever unless ``seconds`` is one of them.
        qos: What it may have of the disk.
    """

    parameters: Mapping[str, float | str] = {}
    qos: Mapping[str, float | str] = {}


def fleet_topology(members: Mapping[str, Member], window_s: float) -> str:
    """The topology of a fleet.

    Args:
        members: By guest name.
        window_s: Length of a window.
    """
    parts = [
        '[topology]\nname = "bench-fleet"\nrun_dir = "run"\nlease = "10s"\n[hypervisor.hv0]',
        f'[controller.disk0]\nkind = "block"\nimage = "disk.img"\nsize = {len(members) * EXTENT_BYTES}',
    ]
    for at, (name, member) in enumerate(members.items()):
        parts.append(
            f"[controller.disk0.extents.{name}]\noffset = {at * EXTENT_BYTES}\nsize = {EXTENT_BYTES}\n"
            f'[guest.{name}]{_COMMON}devices.disk = "disk0/{name}"'
        )
        parameters = _FOR_EVER | {"window_seconds": window_s, "seed": at + 1} | dict(member.parameters)
        parts += [f"parameters.{key} = {_toml(value)}" for key, value in parameters.items()]
        parts += [f"qos.disk.{key} = {_toml(value)}" for key, value in member.qos.items()]
    return "\n".join(parts)


def _toml(value: float | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


class Fleet:
    """Guests, one hypervisor and one controller as processes; a context.

    Args:
        members: By guest name; none of them runs yet.
        window_s: Length of a window.

    Attributes:
        ring: The processes.
    """

    def __init__(self, members: Mapping[str, Member], window_s: float = 1.0) -> None:
        self.ring = Processes(fleet_topology(members, window_s))
        self._members = members
        self._window_s = window_s

    def __enter__(self) -> Fleet:
        self.ring.__enter__()
        try:
            (self.ring.folder / "disk.img").write_bytes(os.urandom(EXTENT_BYTES) * len(self._members))
            self.ring.start("disk0", "hv0")
        except BaseException:
            self.ring.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ring.__exit__(kind, error, trace)

    def start(self, *names: str) -> None:
        """Start guests and wait until each has published a window.

        Raises:
            LocalError: One ended, or is not ready in time.
        """
        self.ring.launch(*names)
        waiting = set(names)
        self._wait(lambda: not waiting.difference(self._loading(waiting)), f"{len(names)} guests to load the disk")

    def stop(self, *names: str) -> None:
        """Stop guests."""
        self.ring.stop(*names)

    def windows(self, names: Sequence[str], count: int) -> dict[str, list[int]]:
        """Requests of guests in the next windows that are whole: the same windows for all.

        Args:
            names: Guests that run.
            count: How many windows.

        Raises:
            LocalError: A guest has ended, or publishes nothing.
        """
        first = max(_end(self._windows(name)) for name in names) + 1  # the next one has begun already
        found: dict[str, list[int]] = {}

        def there() -> bool:
            for name in names:
                published = self._windows(name)
                if name not in found and _end(published) >= first + count:
                    start = first - published["first"]
                    found[name] = published["requests"][start : start + count]
            return len(found) == len(names)

        self._wait(there, f"{count} windows of {len(names)} guests", count * self._window_s + _LATE_S)
        return {name: found[name] for name in names}

    def results(self, name: str, within_s: float) -> dict[str, Any]:
        """What a guest whose load has an end has found.

        Raises:
            LocalError: It is not there in time, or requests failed.
        """
        self._wait(lambda: "requests" in self._published(name), f"the results of guest '{name}'", within_s)
        found = self._published(name)
        if found["failed"] or not found["requests"]:
            raise LocalError(f"the disk failed: {found}", name)
        return found

    def set_qos(self, name: str, qos: Qos) -> None:
        """Let a guest have more or less of its disk, as `iovirt set` does, and wait until that is in force.

        Raises:
            LocalError: The hypervisor does not follow.
        """
        revision = change_settings(self.ring.run_dir, "hv0", f"{name}.disk", lambda _: qos)
        self._wait(lambda: self.status("hv0").content.get("qos_revision", 0) >= revision, f"{qos} of {name}")

    def status(self, name: str) -> ProcessStatus:
        """What a process says of itself.

        Raises:
            LocalError: It says nothing.
        """
        status = read_status_file(self.ring.run_dir.status(name))
        if status is None:
            raise LocalError("the process has no status", name)
        return status

    def _wait(self, done: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
        self.ring.wait_for(done, what, within_s, LOOK_EVERY_S)

    def _loading(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if self._published(name)}

    def _published(self, name: str) -> dict[str, Any]:
        status = read_status_file(self.ring.run_dir.status(name))
        return dict(status.content.get("results", {})) if status is not None else {}

    def _windows(self, name: str) -> dict[str, Any]:
        windows: dict[str, Any] = self._published(name).get("windows", {"first": 0, "requests": []})
        return windows


def _end(windows: Mapping[str, Any]) -> int:
    """Number of the first window that is not published."""
    return int(windows["first"]) + len(windows["requests"])
