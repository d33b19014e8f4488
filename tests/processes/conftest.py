"""What the tests of real processes share: small topologies with short leases."""

from __future__ import annotations

from typing import Any

import pytest

LEASE_MS = 1000


@pytest.fixture
def echo() -> dict[str, Any]:
    """Tables that lay over the built-in topology: the guest prints each line that is typed; one second of lease."""
    return {"topology": {"lease": f"{LEASE_MS}ms"}, "guest": {"guest": {"command_line": "run=echo"}}}


@pytest.fixture
def two_guests() -> dict[str, Any]:
    """Tables of a topology with two guests, alice and bob, on one disk image."""
    machine = {"kind": "machine", "machine": "pc", "hypervisor": "hv0", "image": "bundled:guestos"}
    extents = {"alice": {"size": "1MiB"}, "bob": {"offset": "1MiB", "size": "1MiB"}}
    return {
        "topology": {"lease": f"{LEASE_MS}ms"},
        "hypervisor": {"hv0": {}},
        "controller": {
            "disk0": {"kind": "block", "image": "disk0.img", "size": "2MiB", "extents": extents},
            "tty0": {"kind": "console"},
        },
        "guest": {
            name: {**machine, "command_line": "run=echo", "devices": {"disk": f"disk0/{name}", "console": "tty0"}}
            for name in ("alice", "bob")
        },
    }
