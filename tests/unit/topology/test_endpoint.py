"""Socket addresses: defaults, relative paths, the operating system's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, EndpointError
from iovirt_dist.topology.endpoint import check_socket_path, resolve_endpoint

BASE = Path("/base")


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [
        ("", "ipc:///run/sock/hv0"),
        ("ipc://rel/hv", "ipc:///base/rel/hv"),
        ("ipc:///abs/hv", "ipc:///abs/hv"),
        ("tcp://10.0.0.1:5555", "tcp://10.0.0.1:5555"),
        ("tcp://[fe80::1]:1", "tcp://[fe80::1]:1"),
    ],
)
def test_endpoint_valid_gives_full_address(written: str, endpoint: str) -> None:
    """Empty means a socket in the run directory; ipc paths become absolute."""
    assert resolve_endpoint(written, Path("/run/sock/hv0"), BASE, "f: k") == endpoint


@pytest.mark.parametrize("written", ["ipc://", "udp://a:1", "tcp://a", "tcp://a:0", "tcp://a:65536", "hv0"])
def test_endpoint_invalid_raises_with_key(written: str) -> None:
    """Anything else is refused where it was written."""
    with pytest.raises(ConfigError, match=r'^f: k: expected "ipc://PATH" or "tcp://HOST:PORT"'):
        resolve_endpoint(written, Path("/run/sock/hv0"), BASE, "f: k")


def test_socket_path_of_107_bytes_is_accepted() -> None:
    """sun_path holds 107 bytes and the final NUL."""
    path = Path("/" + "a" * 106)
    assert check_socket_path(path) == path


def test_socket_path_of_108_bytes_raises_with_the_fix() -> None:
    """The error counts bytes, not characters, and says by how much to shorten."""
    with pytest.raises(EndpointError, match=r"108 bytes, the limit is 107; set topology.run_dir .* 1 bytes shorter"):
        check_socket_path(Path("/" + "é" * 53 + "a"))


def test_socket_path_that_was_written_too_long_is_told_where_it_was_written() -> None:
    """Another run directory would not help."""
    expected = r"^f: k: socket path has 122 bytes, the limit is 107; choose one whose path is at least 15 bytes shorter"
    with pytest.raises(ConfigError, match=expected):
        resolve_endpoint("ipc:///" + "a" * 121, Path("/run/sock/hv0"), BASE, "f: k")
