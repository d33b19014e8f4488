"""The run directory: permissions, locks, what stays and what goes."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError, LocalError
from iovirt_dist.runtime.rundir import LOG_KEEP_BYTES, RunDir


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A fresh run directory."""
    made = RunDir(tmp_path / "run")
    made.create()
    return made


def test_create_is_private_and_repeatable(run_dir: RunDir) -> None:
    """Sockets without CURVE are guarded by the folder's mode."""
    run_dir.path.chmod(0o755)
    run_dir.create()
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700
    folders = ["console", "epoch", "log", "qos", "sock", "status", "trace", "vm"]
    assert sorted(path.name for path in run_dir.path.iterdir()) == folders


def test_create_under_a_file_raises_one_line(tmp_path: Path) -> None:
    """A run_dir that cannot be made names itself."""
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"Not a directory; set topology\.run_dir"):
        RunDir(tmp_path / "file" / "run").create()


def test_locked_twice_raises_and_then_lets_go(run_dir: RunDir) -> None:
    """Two supervisors of one run directory refuse each other; no lock file stays."""
    with run_dir.locked():
        assert run_dir.is_locked()
        with pytest.raises(LocalError, match="a topology is up in this run directory; stop it"), run_dir.locked():
            pass
    assert not run_dir.is_locked()
    assert run_dir.leftovers() == []


def test_is_locked_without_folder_is_false(tmp_path: Path) -> None:
    """Asking creates nothing."""
    assert not RunDir(tmp_path / "absent").is_locked()


def test_claimed_twice_raises_and_names_the_socket(run_dir: RunDir) -> None:
    """ZeroMQ would let the second process take the first one's socket."""
    with run_dir.claimed("hv0"):
        with pytest.raises(EndpointError, match=r"sock/hv0: another process 'hv0' runs"), run_dir.claimed("hv0"):
            pass
        with run_dir.claimed("hv1"):
            assert len(run_dir.leftovers()) == 2
    assert run_dir.leftovers() == []


def test_claimed_takes_over_the_lock_of_the_dead(run_dir: RunDir) -> None:
    """After SIGKILL the file is there but nobody holds it."""
    (run_dir.path / "sock" / "hv0.lock").touch()
    with run_dir.claimed("hv0"):
        pass
    assert run_dir.leftovers() == []


def test_claimed_file_replaced_before_the_lock_is_taken_anew(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder unlinks its file before it lets go: a lock on the unlinked file would exclude nobody."""
    path = run_dir.path / "sock" / "hv0.lock"
    flocks: list[int] = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        flocks.append(descriptor)
        path.unlink() if len(flocks) == 1 else None
        path.touch()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_dir.claimed("hv0"):
        assert len(flocks) == 2
    assert run_dir.leftovers() == []


def test_socket_path_too_long_raises(tmp_path: Path) -> None:
    """The limit is the operating system's."""
    with pytest.raises(EndpointError, match="the limit is 107"):
        RunDir(tmp_path / ("x" * 100)).socket("hv0")


def test_clean_removes_traces_and_keeps_logs(run_dir: RunDir) -> None:
    """Logs, console logs and images outlive the topology; sockets, links and status files do not."""
    gone = [run_dir.socket("hv0"), run_dir.status("hv0"), run_dir.console_tty("alice")]
    kept = [run_dir.log("hv0"), run_dir.console_log("alice"), run_dir.path / "disk.img"]
    for path in gone + kept:
        path.touch()
    assert run_dir.clean() == sorted(gone)
    assert all(path.exists() for path in kept)


def test_clean_removes_what_a_killed_vmm_has_left(run_dir: RunDir) -> None:
    """Its sockets, and a folder that is its own."""
    folder = run_dir.path / "vm" / "a.uml"
    folder.mkdir()
    (folder / "pid").touch()
    (run_dir.path / "vm" / "a.disk.vu").touch()

    run_dir.clean()

    assert list((run_dir.path / "vm").iterdir()) == []


def test_clean_removes_a_dangling_link(run_dir: RunDir) -> None:
    """The PTY behind a terminal link dies with its controller."""
    run_dir.console_tty("alice").symlink_to("/dev/pts/absent")
    run_dir.clean()
    assert not run_dir.console_tty("alice").is_symlink()


def test_open_log_appends_and_puts_a_long_one_aside(run_dir: RunDir) -> None:
    """A log grows over restarts, but not for ever."""
    run_dir.log("hv0").write_bytes(b"x" * (LOG_KEEP_BYTES + 1))
    descriptor = run_dir.open_log("hv0")
    os.write(descriptor, b"new")
    os.close(descriptor)
    assert run_dir.log("hv0").read_bytes() == b"new"
    assert run_dir.log("hv0").with_suffix(".log.1").stat().st_size == LOG_KEEP_BYTES + 1
