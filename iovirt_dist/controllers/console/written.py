"""Which commands' data a write to a terminal consists of, and how much of it is there after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, NamedTuple

MAX_PARTS: Final = 64
"""Most commands of one write: their record is one small write, too."""


class Part(NamedTuple):
    """What a command adds to a write.

    Attributes:
        id: The command's, 16 bytes.
        start: Bytes of its data that a former life has written already.
        length: Bytes of its data in this write, those behind `start`.
    """

    id: bytes
    start: int
    length: int


class Written(NamedTuple):
    """What was written last.

    Attributes:
        owner: Whose commands they were, as `owner_of` says.
        done: Bytes of each one's data that are in the terminal's log.
    """

    owner: bytes
    done: Mapping[bytes, int]


NOTHING_WRITTEN: Final = Written(b"", MappingProxyType({}))


def owner_of(peer: str, epoch: int) -> bytes:
    """Return 16 bytes that stand for one life of a peer: its commands' ids mean nothing in another."""
    return blake2b(f"{epoch}/{peer}".encode(), digest_size=16).digest()
