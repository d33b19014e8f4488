"""Draws from a source."""

from __future__ import annotations

import errno
import logging
import random

import pytest

from iovirt_dist.controllers.rng.core import DrawEntropy, EntropyDrawn
from iovirt_dist.controllers.rng.runner import EntropyRunner


def test_draw_gives_what_the_source_gives() -> None:
    """As much as was asked for."""
    runner = EntropyRunner(random.Random(7).randbytes)

    drawn = runner.perform(DrawEntropy(8))
    runner.close()

    assert drawn == EntropyDrawn(random.Random(7).randbytes(8))


def test_source_that_fails_is_logged_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    """The error goes to the core each time."""
    outcomes: list[bytes | OSError] = [OSError(errno.EIO, "no"), OSError(errno.ENOSYS, "no"), b"ok", OSError("no")]

    def source(_: int) -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    runner = EntropyRunner(source)
    with caplog.at_level(logging.ERROR):
        drawn = [runner.perform(DrawEntropy(2)) for _ in range(4)]

    assert drawn == [
        EntropyDrawn(b"", errno.EIO),
        EntropyDrawn(b"", errno.ENOSYS),
        EntropyDrawn(b"ok"),
        EntropyDrawn(b"", errno.EIO),
    ]
    assert len(caplog.records) == 2
