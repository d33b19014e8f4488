"""``iovirt disk`` in a folder, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iovirt_dist.cli.main import main

Run = Callable[..., int]
"""Runs ``iovirt disk`` with words; returns the exit status."""


def disk_command(folder: Path) -> Run:
    """Return what runs ``iovirt disk`` with the topology of a folder, ``t.toml``."""

    def call(*words: object) -> int:
        return main(["disk", *map(str, words), "--file", str(folder / "t.toml")])

    return call
