"""Changes of quality of service while a topology runs: a file that ``iovirt set`` writes and the hypervisor follows.

The file (`RunDir.qos`) holds everything that was set since the topology came up, not the last change alone: a
hypervisor that was killed and starts anew has it all again, and two commands at once lose nothing. Each change raises
the revision; the hypervisor tells in its status which one is in force. The file goes when the hypervisor ends in order,
as with the topology.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from iovirt_dist.errors import LocalError
from iovirt_dist.platform.qos import Qos
from iovirt_dist.runtime.rundir import RunDir


class QosSettings(msgspec.Struct, frozen=True):
    """Content of the file.

    Attributes:
        revision: How often it was changed.
        devices: What holds for devices that something was set for, by ``GUEST.DEVICE``.
    """

    revision: int = 0
    devices: dict[str, Qos] = {}


def read_settings(path: Path) -> QosSettings | None:
    """Read a file; None if it is absent or no such file."""
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=QosSettings)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return settings if all(qos.in_range for qos in settings.devices.values()) else None


def change_settings(run_dir: RunDir, hypervisor: str, device: str, change: Callable[[Qos | None], Qos]) -> int:
    """Change what holds for one device; commands at the same time take turns.

    Args:
        run_dir: Of the running topology.
        hypervisor: Whose file.
        device: ``GUEST.DEVICE``.
        change: Makes new from old; None for a device that nothing was set for yet.

    Returns:
        The revision that has it.

    Raises:
        LocalError: The file cannot be written.
    """
    path = run_dir.qos(hypervisor)
    return _replace(path, lambda devices: {**devices, device: change(devices.get(device))}).revision


def _replace(path: Path, change: Callable[[dict[str, Qos]], dict[str, Qos]]) -> QosSettings:
    """Make a new file from the old one while nobody else does; returns its content.

    Raises:
        LocalError: It cannot be written; the old one is as it was.
    """
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(f"cannot change settings: {error.strerror}", str(path), "is the topology up?") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = read_settings(path) or QosSettings()
        new = QosSettings(old.revision + 1, change(old.devices))
        scratch.write_bytes(msgspec.json.encode(new))
        scratch.replace(path)
    except OSError as error:
        raise LocalError(f"cannot be written: {error.strerror}", str(path)) from None
    finally:
        os.close(lock)
    return new


class QosFile:
    """The hypervisor's side.

    Args:
        path: The file.
        apply: Takes guest, device and what holds for it now, where that has changed.

    Attributes:
        revision: What is in force; 0 for the topology's own settings.
    """

    def __init__(self, path: Path, apply: Callable[[str, str, Qos], None]) -> None:
        self.revision = 0
        self._path = path
        self._apply = apply
        self._seen: tuple[int, int] | None = None
        self._devices: dict[str, Qos] = {}

    def remove(self) -> None:
        """Remove the file: the hypervisor ends in order, and the next one begins with the topology's settings."""
        self._path.unlink(missing_ok=True)

    def forget(self, guests: Collection[str]) -> None:
        """Take out what was set for guests that are gone: one of that name which comes later is another.

        Raises:
            LocalError: The file cannot be written.
        """
        if any(_guest(name) in guests for name in self._devices):
            self._replace_without(guests)

    def _replace_without(self, guests: Collection[str]) -> None:
        def without(devices: dict[str, Qos]) -> dict[str, Qos]:
            return {name: qos for name, qos in devices.items() if _guest(name) not in guests}

        _replace(self._path, without)
        self._devices = without(self._devices)

    def poll(self) -> None:
        """Follow the file if it is another one than before."""
        try:
            stat = self._path.stat()
        except OSError:
            return
        if (stat.st_ino, stat.st_mtime_ns) == self._seen:
            return
        settings = read_settings(self._path)
        if settings is None:
            return
        self._seen = stat.st_ino, stat.st_mtime_ns
        for name, qos in settings.devices.items():
            if self._devices.get(name) != qos:
                guest, _, device = name.rpartition(".")
                self._apply(guest, device, qos)
        self._devices = settings.devices
        self.revision = settings.revision


def _guest(name: str) -> str:
    """The guest in ``GUEST.DEVICE``."""
    return name.rpartition(".")[0]
