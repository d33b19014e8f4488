"""The sockets of an NBD gateway."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.runtime.nbd_listener import check_address, listening_socket


def test_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    """Nobody listens there any more."""
    path = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))

    with listening_socket(path, 0) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = listener.accept()
        accepted.close()


def test_socket_at_which_somebody_listens_is_refused(tmp_path: Path) -> None:
    """And stays."""
    path = tmp_path / "busy"
    with listening_socket(path, 0), pytest.raises(EndpointError, match=r"busy: the address is in use; choose another"):
        listening_socket(path, 0)
    assert path.is_socket()


def test_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    """It may be somebody's disk."""
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(EndpointError, match="in use"):
        listening_socket(path, 0)
    assert path.read_text() == "mine"


def test_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    """With the path."""
    with pytest.raises(EndpointError, match=r"no/where: cannot listen: No such file or directory"):
        listening_socket(tmp_path / "no" / "where", 0)


def test_address_that_is_free_is_left_as_it_was(tmp_path: Path) -> None:
    """Nobody listens there yet."""
    check_address(tmp_path / "free", 0)

    assert list(tmp_path.iterdir()) == []


def test_address_at_which_somebody_listens_is_told(tmp_path: Path) -> None:
    """And stays."""
    path = tmp_path / "busy"
    with listening_socket(path, 0), pytest.raises(EndpointError, match=r"busy: the address is in use; choose another"):
        check_address(path, 0)
    assert path.is_socket()


def test_port_in_use_is_refused() -> None:
    """With address and port."""
    with listening_socket(None, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{port}: the address is in use"):
            listening_socket(None, port)
