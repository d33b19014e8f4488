"""Addresses and the ownership of socket files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.transport.address import MAX_IPC_PATH_BYTES, IpcClaim, check_endpoint


@pytest.mark.parametrize(
    "endpoint", ["ipc:///run/x/a.sock", "ipc://run/a.sock", "tcp://127.0.0.1:1", "tcp://[::1]:65535"]
)
def test_well_formed_address_is_accepted_for_both(endpoint: str) -> None:
    """What the topology may say."""
    check_endpoint(endpoint, listening=True)
    check_endpoint(endpoint, listening=False)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://*:5555"])
def test_open_address_is_for_listening_only(endpoint: str) -> None:
    """One can listen at any port or on all interfaces, but not dial them."""
    check_endpoint(endpoint, listening=True)
    with pytest.raises(EndpointError, match="no single peer"):
        check_endpoint(endpoint, listening=False)


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("", "no address"),
        ("run/a.sock", "no address"),
        ("tcp://host", "no address"),
        ("tcp://ho st:1", "no address"),
        ("tcp://host:-1", "no address"),
        ("inproc://x", "no address"),
        ("tcp://host:65536", "above 65535"),
        ("ipc://", "no socket file"),
        ("ipc:///run/", "no socket file"),
        ("ipc:///run/a\0b", "no socket file"),
        ("ipc://@abstract", "no permissions"),
        ("ipc:///" + "x" * MAX_IPC_PATH_BYTES, "108 bytes, at most 107"),
        ("ipc:///" + "\u00e9" * 54, "109 bytes"),
    ],
)
def test_malformed_address_is_an_error_that_says_what(endpoint: str, what: str) -> None:
    """Each error names the fault and a way out."""
    with pytest.raises(EndpointError, match=what) as caught:
        check_endpoint(endpoint, listening=True)
    assert caught.value.fix


def test_missing_directory_is_made_private(tmp_path: Path) -> None:
    """Nobody else may connect to, or replace, what is in it."""
    claim = IpcClaim(f"ipc://{tmp_path}/deep/run/a.sock")
    mode = (tmp_path / "deep" / "run").stat().st_mode & 0o777
    claim.release()
    assert mode == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o1777])
def test_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that puts it right."""
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(EndpointError, match=f"mode {mode:04o}") as caught:
        IpcClaim(f"ipc://{directory}/a.sock")
    assert caught.value.fix == f"chmod 700 {directory}"
    assert list(directory.iterdir()) == []


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way of the directory."""
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match="directory cannot be made"):
        IpcClaim(f"ipc://{tmp_path}/file/a.sock")


def test_claimed_address_is_in_use_by_a_named_process(tmp_path: Path) -> None:
    """The error says who has it."""
    claim = IpcClaim(f"ipc://{tmp_path}/a.sock")
    with pytest.raises(EndpointError, match=f"in use by process {os.getpid()}"):
        IpcClaim(f"ipc://{tmp_path}/a.sock")
    claim.release()


def test_released_address_can_be_claimed_again(tmp_path: Path) -> None:
    """Nothing stays behind, and releasing twice harms no later owner."""
    first = IpcClaim(f"ipc://{tmp_path}/a.sock")
    first.release()
    second = IpcClaim(f"ipc://{tmp_path}/a.sock")
    first.release()
    left = [path.name for path in tmp_path.iterdir()]
    second.release()
    assert left == ["a.sock.lock"]
    assert list(tmp_path.iterdir()) == []


def test_stale_socket_and_lock_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    """A SIGKILL leaves both files; neither keeps the next process out."""
    code = (
        "import os, signal, sys; from iovirt_dist.transport import zeromq;"
        "zeromq.listen(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, f"ipc://{tmp_path}/a.sock"], check=False)
    before = sorted(path.name for path in tmp_path.iterdir())
    claim = IpcClaim(f"ipc://{tmp_path}/a.sock")
    during = [path.name for path in tmp_path.iterdir()]
    claim.release()
    assert before == ["a.sock", "a.sock.lock"]
    assert during == ["a.sock.lock"]


def test_socket_of_a_live_process_without_a_lock_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's program may listen there; its socket is not stolen."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sock"))
        other.listen(1)
        with pytest.raises(EndpointError, match="in use"):
            IpcClaim(f"ipc://{tmp_path}/a.sock")
    assert [path.name for path in tmp_path.iterdir()] == ["a.sock"]
    (tmp_path / "a.sock").unlink()


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A typing error must not cost anybody a file."""
    (tmp_path / "a.sock").write_text("precious")
    with pytest.raises(EndpointError, match="no socket is in the way"):
        IpcClaim(f"ipc://{tmp_path}/a.sock")
    assert (tmp_path / "a.sock").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["a.sock"]
