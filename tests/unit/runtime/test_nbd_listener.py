"""The sockets of an NBD gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.runtime.nbd_listener import check_address, listening_socket


def test_address_that_is_free_is_left_as_it_was(tmp_path: Path) -> None:
    """Nobody listens there yet."""
    check_address(tmp_path / "free", 0)

    assert list(tmp_path.iterdir()) == []


def test_address_at_which_somebody_listens_is_told(tmp_path: Path) -> None:
    """And stays."""
    path = tmp_path / "busy"
    with listening_socket(path, 0), pytest.raises(EndpointError, match="busy: the path is in use"):
        check_address(path, 0)
    assert path.is_socket()


def test_port_in_use_is_refused() -> None:
    """With address and port."""
    with listening_socket(None, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            listening_socket(None, port)
