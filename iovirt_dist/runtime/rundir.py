"""The run directory: sockets, logs, terminals and status files of one running topology.

    RUN_DIR/            0700, locked by whoever supervises (flock on the folder itself: no lock file can be left behind)
      sock/NAME         sockets; NAME.lock while process NAME runs
      vm/GUEST.DEVICE.vu  vhost-user sockets of a virtual machine; GUEST.serial its serial console;
                        GUEST.uml what User-Mode Linux keeps there
      log/NAME.log      what the process printed; stays
      console/GUEST.log what the guest's terminal showed; stays
      console/GUEST.tty link to the terminal's PTY
      status/NAME.json  what the process says about itself
      trace/NAME.jsonl  its trace points, while trace/_on exists; stays
      epoch/NAME        number of its last life; stays
      qos/NAME.json     what `iovirt set` has set for the guests of hypervisor NAME
      NAME.nbd          socket of NBD gateway NAME
      scale.json        what `iovirt scale` has said

Sockets, locks, links, status files, settings and the trace's switch go when the topology goes; logs and images stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.errors import EndpointError, LocalError
from iovirt_dist.topology.endpoint import check_socket_path
from iovirt_dist.topology.vm_specs import SOCKET_FOLDER

FOLDERS: Final = ("sock", SOCKET_FOLDER, "log", "console", "status", "trace", "qos", "epoch")

SUPERVISOR: Final = "_up"
"""Name of the supervisor's own files; no process name starts with an underscore."""

LOG_KEEP_BYTES: Final = 1 << 20
"""A log longer than this is moved to ``NAME.log.1`` when its process is started anew."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths in one run directory, and its locks.

    Attributes:
        path: The folder, absolute.
    """

    path: Path

    def create(self) -> None:
        """Make the folder and its parts, readable by the owner only; what exists stays.

        Raises:
            LocalError: It cannot be made, or belongs to somebody else.
        """
        try:
            for folder in (self.path, *(self.path / name for name in FOLDERS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise LocalError("the run directory belongs to another user", str(self.path), "set topology.run_dir")
            self.path.chmod(0o700)
        except OSError as error:
            what = f"cannot make the run directory: {error.strerror}"
            raise LocalError(what, str(self.path), "set topology.run_dir") from None

    def socket(self, name: str) -> Path:
        """Path of a process's socket.

        Raises:
            EndpointError: The path is longer than the operating system takes.
        """
        return check_socket_path(self.path / "sock" / name)

    def log(self, name: str) -> Path:
        """Path of a process's log file."""
        return self.path / "log" / f"{name}.log"

    def console_log(self, guest: str) -> Path:
        """Path of what a guest's terminal showed, as raw bytes."""
        return self.path / "console" / f"{guest}.log"

    def console_tty(self, guest: str) -> Path:
        """Path of the link to the guest's PTY; what is written there is what the guest reads."""
        return self.path / "console" / f"{guest}.tty"

    def status(self, name: str) -> Path:
        """Path of a process's status file."""
        return self.path / "status" / f"{name}.json"

    @property
    def trace_switch(self) -> Path:
        """Path of the file that switches tracing on in all processes."""
        return self.path / "trace" / "_on"

    def trace_file(self, name: str) -> Path:
        """Path of a process's trace points, a JSON object a line."""
        return self.path / "trace" / f"{name}.jsonl"

    def qos(self, hypervisor: str) -> Path:
        """Path of what was set for a hypervisor's guests since the topology came up."""
        return self.path / "qos" / f"{hypervisor}.json"

    def epoch(self, name: str) -> Path:
        """Path of the number of a process's last life."""
        return self.path / "epoch" / name

    def open_log(self, name: str) -> int:
        """Open a log for appending; one that has grown too long is put aside first.

        Returns:
            File descriptor that the caller closes.
        """
        path = self.log(name)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LOG_KEEP_BYTES:
                path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def is_locked(self) -> bool:
        """Whether somebody supervises this run directory now."""
        if not self.path.is_dir():
            return False
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run directory for one supervisor; the kernel lets go when the process ends, however it ends.

        Raises:
            LocalError: Another supervisor holds it.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fix = "stop it with 'iovirt down', or set another topology.run_dir"
                raise LocalError("a topology is up in this run directory", str(self.path), fix) from None
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Hold a process name, so that a second process of that name is refused instead of taking over the socket.

        ZeroMQ unlinks an existing ipc socket when it binds, so the socket itself refuses nobody.

        Raises:
            EndpointError: A process of that name runs; `where` names the socket.
        """
        path = self.path / "sock" / f"{name}.lock"
        descriptor = _lock_file(path)
        if descriptor is None:
            fix = "stop the other one, or give this one another name or run directory"
            raise EndpointError(f"another process '{name}' runs", str(path.with_suffix("")), fix)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def clean(self) -> list[Path]:
        """Remove what must not outlive the topology: sockets, locks, terminal links, status files.

        Call it only while holding `locked`, when all processes are gone.

        Returns:
            What was removed.
        """
        leftovers = self.leftovers()
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return leftovers

    def leftovers(self) -> list[Path]:
        """Everything that `clean` would remove."""
        patterns = ["sock/*", f"{SOCKET_FOLDER}/*", "status/*", "console/*.tty", "trace/_on", "qos/*", "scale.json*"]
        patterns.append("*.nbd")
        return sorted(path for pattern in patterns for path in self.path.glob(pattern))


def _lock_file(path: Path) -> int | None:
    """Create and lock `path`; None if another process holds it.

    A holder unlinks the file before it lets go, so a lock on a file that is no longer at `path` does not count.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)
