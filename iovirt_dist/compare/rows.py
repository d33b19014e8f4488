"""The rows of the comparison: four ways in which the same job of the same guest reaches the same disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iovirt_dist.compare.job import Job
from iovirt_dist.platform.level import Level

GUEST: Final = "guest"
HYPERVISOR: Final = "hv0"
DISK: Final = "disk0"
TERMINAL: Final = "tty0"

KNOWLEDGE_RUNS: Final = 2
"""The program runs twice where knowledge is measured: who cannot tell the two processes apart does not know them."""
KNOWLEDGE_BLOCKS: Final = 2
SINGLE_WORD_BLOCK_BYTES: Final = 1024
"""Blocks of that pass where each word is a trap, so that it stays short."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: Key in the results.
        level: Where the guest's disk is intercepted.
        single_words: Whether the guest's driver reads the disk's data port with one IN for each word.
    """

    name: str
    level: Level
    single_words: bool = False

    def knowledge_job(self, job: Job) -> Job:
        """A few requests of a job's kind, in two processes, for the pass that is traced."""
        block = min(job.block_bytes, SINGLE_WORD_BLOCK_BYTES) if self.single_words else job.block_bytes
        kib = -(-KNOWLEDGE_BLOCKS * block // 1024)
        return replace(job, kib=kib, block_bytes=block, runs=KNOWLEDGE_RUNS)

    def topology_text(self, job: Job, base: Path) -> str:
        """Return the topology of one guest that does a job, everything of it below `base`; the image is ``disk.img``.

        The guest waits at its terminal first, until ``exit`` is typed. Nothing is sent ahead of INs.
        """
        words = f"{job.options()} insn={'single' if self.single_words else 'rep'}"
        lines = [
            "[topology]",
            'name = "compare"',
            f"run_dir = {json.dumps(str(base / 'run'))}",
            f"[hypervisor.{HYPERVISOR}]",
            f"[controller.{DISK}]",
            'kind = "block"',
            f"image = {json.dumps(str(base / 'disk.img'))}",
            f"[controller.{TERMINAL}]",
            'kind = "console"',
            f"[guest.{GUEST}]",
            'kind = "machine"',
            'machine = "pc"',
            f"level = {json.dumps(str(self.level.value))}",
            f"hypervisor = {json.dumps(HYPERVISOR)}",
            'restart = "never"',
            'memory = "32MiB"',
            'image = "bundled:guestos"',
            "prefetch = false",
            f"command_line = {json.dumps(words)}",
            f"devices.disk = {json.dumps(DISK)}",
            f"devices.console = {json.dumps(TERMINAL)}",
        ]
        return "\n".join(lines) + "\n"


ROWS: Final = (
    Row("operation", Level.OPERATION, single_words=True),
    Row("operation_string", Level.OPERATION),
    Row("driver", Level.DRIVER),
    Row("syscall", Level.SYSCALL),
)
