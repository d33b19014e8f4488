"""How many hostile inputs the fuzz tests try: few with the rest of the suite, 100,000 of each kind in CI."""

from __future__ import annotations

import os

PER_EXAMPLE = 100
"""Inputs that one hypothesis example carries, from a generator with the example's seed: an example is dear, an input is
not."""


def examples(inputs: int) -> int:
    """Return how many hypothesis examples make so many inputs, or as many as IOVIRT_FUZZ_INPUTS says."""
    return max(int(os.environ.get("IOVIRT_FUZZ_INPUTS", inputs)) // PER_EXAMPLE, 1)
