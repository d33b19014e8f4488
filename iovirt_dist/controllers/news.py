"""What a device core tells its peers besides completions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TellUnitsChanged:
    """Tell all peers that IDENTIFY has other answers now."""
