"""The measured job, and what is true of it: the requests that it makes, in order.

The bundled guest OS's program ``job`` reads the disk from its beginning in blocks, hashes what it read, and writes some
of the blocks back unchanged (``images/guestos/programs/job.c``). What it will ask for is thus known without asking it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

DISK_FILE: Final = "/dev/vda"
"""The file that the job opens."""

SEED: Final = 2026
MIN_BLOCK_BYTES: Final = 512
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_KIB: Final = 1 << 20
"""The job counts bytes with 32 bits."""


class JobRequest(NamedTuple):
    """One read or write of the job.

    Attributes:
        run: Which run of the program made it, from 0.
        direction: ``read`` or ``write``.
        offset: Bytes from the beginning of the disk.
        length: Bytes.
    """

    run: int
    direction: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Job:
    """What the program is told.

    Attributes:
        kib: KiB that it reads, 0..`MAX_KIB`.
        block_bytes: Bytes of one request, `MIN_BLOCK_BYTES`..`MAX_BLOCK_BYTES`, a multiple of 512.
        write_percent: Of each 100 blocks so many are written back, 0..100.
        runs: How often the program runs, one after another, each as a process of its own.
    """

    kib: int
    block_bytes: int = 65_536
    write_percent: int = 0
    runs: int = 1

    @property
    def bytes(self) -> int:
        """Bytes that one run reads."""
        return self.kib * 1024

    def requests(self) -> Iterator[JobRequest]:
        """Everything that it asks of the disk, in order; flushes apart."""
        for run in range(self.runs):
            for block, offset in enumerate(range(0, self.bytes, self.block_bytes)):
                length = min(self.block_bytes, self.bytes - offset)
                yield JobRequest(run, "read", offset, length)
                if is_rewritten(block, self.write_percent):
                    yield JobRequest(run, "write", offset, length)

    def options(self) -> str:
        """The words of the kernel's command line that say so."""
        programs = ",".join(["echo", *["job"] * self.runs])
        return f"run={programs} kib={self.kib} bs={self.block_bytes} write={self.write_percent} result=none"


def is_rewritten(block: int, percent: int) -> bool:
    """Whether the job writes a block back: `percent` of each 100 blocks, evenly spread, the first one among them."""
    block %= 100
    return (block * percent + 99) // 100 != ((block + 1) * percent + 99) // 100


def disk_content(job: Job) -> bytes:
    """Bytes of the disk as far as the job reads it: no two sectors alike, the same every time."""
    return random.Random(SEED).randbytes(job.bytes)  # noqa: S311 - a pattern, not a secret


def sha256_of(content: bytes) -> str:
    """The host's own checksum, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
