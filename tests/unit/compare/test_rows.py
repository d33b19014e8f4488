"""The rows' topologies."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.compare.job import Job
from iovirt_dist.compare.rows import ROWS, Row
from iovirt_dist.platform.level import Level
from iovirt_dist.topology import Origin, topology_from_text
from iovirt_dist.topology.specs import MachineSpec


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_topology_has_its_level_and_sends_nothing_ahead(row: Row, tmp_path: Path) -> None:
    """Only the level and the kind of instruction tell the rows apart."""
    (tmp_path / "disk.img").write_bytes(bytes(8192))
    text = row.topology_text(Job(8, 4096), tmp_path)

    topology = topology_from_text(text, Origin("test", None, tmp_path))

    guest = topology.guest("guest")
    assert isinstance(guest, MachineSpec)
    assert (guest.level, guest.prefetch) == (row.level, False)
    assert ("insn=single" in guest.command_line) == (row.name == "operation")


def test_row_knowledge_job_is_short_where_each_word_traps() -> None:
    """Elsewhere its blocks are the job's: how a request is divided depends on its size."""
    job = Job(1024, 65_536, 10)

    jobs = [row.knowledge_job(job) for row in ROWS]

    assert [(short.kib, short.block_bytes, short.write_percent, short.runs) for short in jobs] == [
        (2, 1024, 10, 2),
        (128, 65_536, 10, 2),
        (128, 65_536, 10, 2),
        (128, 65_536, 10, 2),
    ]


def test_rows_cover_all_levels() -> None:
    """The operation level twice."""
    assert [row.level for row in ROWS] == [Level.OPERATION, Level.OPERATION, Level.DRIVER, Level.SYSCALL]
