"""Parameters of a script: as the topology has them, checked against defaults and limits."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology.parse import suggestion
from iovirt_dist.topology.units import parse_size

Limits = Mapping[str, tuple[Any, str]]
"""By parameter: whether it is within its limits, and what those are, in words."""


class Parameters(NamedTuple):
    """A script's parameters.

    Attributes:
        values: All of them, sizes in bytes.
        written: As the topology has them, for messages.
    """

    values: dict[str, Any]
    written: dict[str, Any]

    def check(self, limits: Limits) -> None:
        """Check limits.

        Raises:
            ConfigError: A parameter is not within its own.
        """
        for name, (fine, expected) in limits.items():
            if not fine:
                raise ConfigError(f"expected {expected}, got {self.written[name]!r}", f"parameters.{name}")


def read_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any], sizes: Container[str]) -> Parameters:
    """Take what is given, and defaults for the rest.

    Args:
        given: The script's parameters in the topology.
        defaults: All that there are; a value's type is that of its default, a number with a fraction may have none.
        sizes: Names of those that are sizes, such as ``"4KiB"``.

    Raises:
        ConfigError: One is unknown, of another type, or no size.
    """
    for name in given:
        if name not in defaults:
            raise ConfigError("unknown parameter", f"parameters.{name}", suggestion(name, defaults))
    written: dict[str, Any] = {**defaults, **given}
    values: dict[str, Any] = dict(written)
    for name, default in defaults.items():
        value: Any = written[name]
        kinds = (int, float) if isinstance(default, float) else (int, str) if name in sizes else type(default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ConfigError(f"expected something like {default!r}, got {value!r}", f"parameters.{name}")
        if name in sizes:
            values[name] = _bytes(name, value)
    return Parameters(values, written)


def _bytes(name: str, size: Any) -> int:
    try:
        return parse_size(size)
    except ValueError as error:
        raise ConfigError(f"{error}, got {size!r}", f"parameters.{name}") from None
