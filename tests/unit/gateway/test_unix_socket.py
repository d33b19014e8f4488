"""Listening where VMMs and NBD clients connect."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.gateway.unix_socket import listen_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to listen."""
    return tmp_path / "disk.sock"


def test_listen_replaces_the_file_of_an_owner_that_is_gone(path: Path) -> None:
    """Nobody else may connect to the new one."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(os.fspath(path))

    with listen_at(path) as listening, socket.socket(socket.AF_UNIX) as client:
        assert path.stat().st_mode & 0o777 == 0o600
        client.connect(os.fspath(path))
        listening.accept()[0].close()


def test_listen_where_somebody_listens_is_refused(path: Path) -> None:
    """The other one keeps its socket."""
    with listen_at(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(EndpointError, match=rf"{re.escape(str(path))}: the path is in use; stop who listens there"):
            listen_at(path)
        client.connect(os.fspath(path))


def test_listen_where_there_is_another_file_is_refused(path: Path) -> None:
    """It may be somebody's disk."""
    path.write_text("precious")
    with pytest.raises(EndpointError, match="in use"):
        listen_at(path)
    assert path.read_text() == "precious"


def test_listen_where_nobody_can_is_refused(tmp_path: Path) -> None:
    """No such folder, and a path that is too long."""
    with pytest.raises(EndpointError, match=r"none/disk.sock: cannot listen: No such file or directory"):
        listen_at(tmp_path / "none" / "disk.sock")
    with pytest.raises(EndpointError, match="bytes"):
        listen_at(tmp_path / ("x" * 120))
