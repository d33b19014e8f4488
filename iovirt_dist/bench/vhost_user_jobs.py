"""What guests do in the comparison of vhost-user back ends, as text for their initial RAM disks, and what they report.

Each guest has both disks at once and loads them in turns, so both sides share the kernel, the VMM and the machine's
moods. Which one comes first alternates from round to round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from iovirt_dist.errors import LocalError

SIDES: Final = {"ours": "/dev/vda", "base": "/dev/vdb"}
"""Disks in the guest; they have their names in the order in which the VMM is told of them."""

END: Final = "bench: end"
"""The guest's last line; it is switched off a little later."""
TRACED: Final = "bench: traced"
"""Behind this line the guest waits, and then reads at depth 1 for the second time: ours only, to be traced."""
UNTRACED: Final = "bench: untraced"
"""That is over."""

JOB_FILE: Final = "/jobs.fio"
TRACED_FILE: Final = "/traced.fio"

_TRACE_WAIT_S: Final = 3
_OFF_WAIT_S: Final = 3
_RAMP_S: Final = 0.3
_READ_IOPS_FIELD, _WRITE_IOPS_FIELD = 7, 48
_FIELDS: Final = 49
_DD: Final = re.compile(r"^dd (\S+)\r?\n(?:[^\n]* records [^\n]*\n)*(\d+) bytes [^\n]*? ([\d.e-]+) s", re.MULTILINE)


class FioJob(NamedTuple):
    """A load of fio.

    Attributes:
        side: Which disk.
        pattern: ``read`` or ``write``, at random places.
        depth: Requests in flight.
        round: Which turn.
    """

    side: str
    pattern: str
    depth: int
    round: int

    @property
    def name(self) -> str:
        """In fio's report."""
        return f"{self.side}.{self.pattern}.{self.depth}.{self.round}"


class Copy(NamedTuple):
    """A load of dd, one request at a time.

    Attributes:
        side: Which disk.
        pattern: ``read`` or ``write``.
        block: Bytes of a request.
        round: Which turn.
    """

    side: str
    pattern: str
    block: int
    round: int

    @property
    def name(self) -> str:
        """In front of dd's report."""
        return f"{self.side}.{self.pattern}.{self.block}.{self.round}"


def in_turns(rounds: int) -> Iterator[tuple[int, str]]:
    """Rounds with their sides, in the order in which these are loaded."""
    for number in range(rounds):
        for side in sorted(SIDES, reverse=number % 2 == 0):
            yield number, side


def fio_text(jobs: Iterable[FioJob], seconds: float) -> str:
    """What fio is told: one job behind the other, 4 KiB each, past the guest's page cache.

    Args:
        jobs: In their order.
        seconds: Of each.
    """
    lines = ["[global]", "ioengine=libaio", "direct=1", "bs=4k", "thread", "time_based"]
    lines += [f"runtime={round(seconds * 1000)}ms", f"ramp_time={round(_RAMP_S * 1000)}ms"]
    for job in jobs:
        lines += [f"[{job.name}]", "stonewall", f"filename={SIDES[job.side]}", f"rw=rand{job.pattern}"]
        lines.append(f"iodepth={job.depth}")
    return "\n".join(lines) + "\n"


def fio_script() -> str:
    """What the shell does in QEMU's guest: all jobs, and then the one that is traced."""
    fio = "/bin/fio --output-format=terse --terse-version=3"
    return f"""\
{fio} {JOB_FILE}
echo "{TRACED}"
sleep {_TRACE_WAIT_S}
{fio} {TRACED_FILE}
echo "{UNTRACED}"
{_the_end()}"""


def dd_script(copies: Iterable[Copy], megabytes: int) -> str:
    """What the shell does in the guest of User-Mode Linux.

    Args:
        copies: In their order.
        megabytes: What each moves at most; with small blocks less, as each block is a request.
    """
    lines = []
    for copy in copies:
        count = min((megabytes << 20) // copy.block, 128 * megabytes)
        disk = SIDES[copy.side]
        files = f"if={disk} of=/dev/null iflag=direct"
        if copy.pattern == "write":
            files = f"if=/dev/zero of={disk} oflag=direct conv=notrunc"
        lines.append(f'echo "dd {copy.name}"; /bin/dd {files} bs={copy.block} count={count} 2>&1')
    return "\n".join([*lines, _the_end()])


def _the_end() -> str:
    """Say so, and leave time to read it before the machine is switched off."""
    return f'echo "{END}"\nsleep {_OFF_WAIT_S}\n'


def fio_iops(output: str) -> dict[FioJob, float]:
    """Find requests a second by job in what a guest has printed: fio's terse lines (fio(1), "TERSE OUTPUT", version 3).

    Raises:
        LocalError: A job failed.
    """
    found = {}
    for line in output.splitlines():
        fields = line.strip().split(";")
        if len(fields) < _FIELDS or fields[0] != "3":
            continue
        side, pattern, depth, number = fields[2].split(".")
        if fields[4] != "0":
            raise LocalError(f"job {fields[2]} of fio failed with error {fields[4]}", "vhost_user")
        iops = float(fields[_READ_IOPS_FIELD if pattern == "read" else _WRITE_IOPS_FIELD])
        found[FioJob(side, pattern, int(depth), int(number))] = iops
    return found


def dd_rates(output: str) -> dict[Copy, float]:
    """Find MiB a second by copy in what a guest has printed."""
    found = {}
    for name, moved, seconds in _DD.findall(output):
        side, pattern, block, number = name.split(".")
        found[Copy(side, pattern, int(block), int(number))] = int(moved) / max(float(seconds), 1e-6) / (1 << 20)
    return found
