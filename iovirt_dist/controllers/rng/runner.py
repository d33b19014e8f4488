"""Performs the entropy core's draws: the thin I/O between the core and the source."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from iovirt_dist.controllers.rng.core import DrawEntropy, EntropyDrawn
from iovirt_dist.wire.codec import Buffer

_log = logging.getLogger(__name__)

Source = Callable[[int], Buffer]
"""``source(length)`` gives random bytes, at least one and at most `length`, or raises OSError: `os.urandom`, which
reads the kernel's generator (getrandom(2)), or a seeded `random.Random.randbytes` in tests."""


class EntropyRunner:
    """Hands of one entropy core.

    Args:
        source: Where random bytes come from.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._failed = False

    def perform(self, action: DrawEntropy) -> EntropyDrawn:
        """Draw; a failure is logged once until a draw succeeds."""
        try:
            data = self._source(action.length)
        except OSError as error:
            if not self._failed:
                _log.error("source of entropy: %s", error)
            self._failed = True
            return EntropyDrawn(b"", error.errno or errno.EIO)
        self._failed = False
        return EntropyDrawn(data)

    def close(self) -> None:
        """Nothing is open."""
