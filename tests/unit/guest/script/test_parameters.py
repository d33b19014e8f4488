"""Parameters of scripts: defaults, types, sizes and limits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script.parameters import read_parameters

DEFAULTS = {"block": "4KiB", "depth": 64, "seconds": 5.0, "packed": False, "devices": ["disk"]}


def test_what_is_not_given_is_as_by_default() -> None:
    """Sizes in bytes; what is written stays as it is, for messages."""
    read = read_parameters({"depth": 2, "seconds": 1}, DEFAULTS, {"block"})
    assert read.values == {"block": 4096, "depth": 2, "seconds": 1, "packed": False, "devices": ["disk"]}
    assert read.written["block"] == "4KiB"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dpeth": 1}, "parameters.dpeth: unknown parameter; did you mean 'depth'?"),
        ({"depth": 1.5}, "parameters.depth: expected something like 64, got 1.5"),
        ({"depth": True}, "parameters.depth: expected something like 64, got True"),
        ({"seconds": "1"}, "parameters.seconds: expected something like 5.0, got '1'"),
        ({"packed": 1}, "parameters.packed: expected something like False, got 1"),
        ({"devices": "disk"}, "parameters.devices: expected something like ['disk'], got 'disk'"),
        ({"block": "4Kib"}, "parameters.block: expected a size"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    """One line: which parameter, and what it may be."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_parameters(given, DEFAULTS, {"block"})


def test_limits_are_told_in_words() -> None:
    """With the value as it was written."""
    read = read_parameters({"block": "1MiB"}, DEFAULTS, {"block"})
    read.check({"block": (True, "anything"), "depth": (True, "anything")})
    with pytest.raises(ConfigError, match=re.escape("parameters.block: expected less, got '1MiB'")):
        read.check({"depth": (True, "anything"), "block": (False, "less")})
