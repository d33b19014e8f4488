"""Settings of a session end."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", 0),
        ("epoch", 1 << 63),
        ("credits", 0),
        ("credits", 65537),
        ("window", 0),
        ("window", 65537),
        ("lease_ms", 9),
        ("lease_ms", 600_001),
        ("ping_ms", 2001),
        ("ping_ms", -1),
        ("retry_ms", 0),
        ("name", ""),
        ("name", "a b"),
        ("name", "-a"),
        ("name", "a" * 65),
        ("features", ("two words",)),
        ("features", tuple(f"f{n}" for n in range(33))),
    ],
)
def test_config_outside_its_range_is_refused(key: str, value: object) -> None:
    """A setting that could not travel, or would never work, is an error at once."""
    settings: dict[str, object] = {"role": Role.GUEST, "name": "alice", "epoch": 1, key: value}
    with pytest.raises(ConfigError):
        SessionConfig(**settings)  # type: ignore[arg-type]  # the values under test are wrong on purpose
