"""``iovirt demo``: the main job on real processes, the three levels side by side, and whether every number agrees.

The bundled guest OS reads 1 MiB of its disk through the ATA ports, prints its SHA-256, writes a result block, and then
lets user programs poke at I/O where they may not. The demo compares the checksum with the host's own of the image, and
the guest's count of its traps with the hypervisor's. Then the same guest does a small job at the operation, the
driver and the system-call level, as ``iovirt compare`` has it.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from iovirt_dist.cli.compare import compare
from iovirt_dist.cli.compare_table import print_comparison
from iovirt_dist.cli.launch import start_detached, wait_ready
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail, note, print_json, print_table, printable
from iovirt_dist.cli.terminal import exit_on_signals
from iovirt_dist.compare.job import Job, disk_content, sha256_of
from iovirt_dist.compare.knowledge import KNOWN, RECONSTRUCTED
from iovirt_dist.compare.result import RowResult, comparison_json, ratios
from iovirt_dist.compare.rows import ROWS
from iovirt_dist.errors import LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import read_status
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Topology, default_text, load_topology

GUEST: Final = "guest"
JOB_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 50.0
SETTLE_S: Final = 5.0
SEED: Final = 2026
LEVELS_JOB: Final = Job(kib=32, block_bytes=16_384)
"""What the three levels are compared with."""
FEWER_TRAPS: Final = 500
"""How many times fewer traps the driver level must need than one IN for each word."""

_ENDED: Final = b"init: all done"
_DIGEST: Final = re.compile(r"^job: read 1024 KiB in \d+ requests, sha256 ([0-9a-f]{64})", re.MULTILINE)
_WRITTEN: Final = "written and read back, ok"
_REFUSED: Final = "poke: 9 of 9 refused"
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found.

    Attributes:
        checks: Named conditions; the demo succeeds if all hold.
        guest: The hypervisor's status of the guest.
        controllers: The hypervisor's status of its controllers.
        expected_sha256: The host's checksum of the image.
        guest_sha256: The guest's; empty if it printed none.
        job_s: Seconds from power-on to the end of the guest's programs.
        levels: The job of `LEVELS_JOB` at each level.
    """

    checks: dict[str, bool]
    guest: dict[str, Any]
    controllers: dict[str, Any]
    expected_sha256: str
    guest_sha256: str
    job_s: float
    levels: Mapping[str, RowResult] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return all(self.checks.values())


def run_demo(*, as_json: bool) -> int:
    """Run the demo in a temporary run directory, of which nothing stays.

    Args:
        as_json: Print one object instead of tables; the guest's output goes to stderr then.

    Returns:
        Exit status 0 only if checksum, refusals and counts agree.

    Raises:
        LocalError: The processes cannot be started.
    """
    base = Path(tempfile.mkdtemp(prefix="iovirt-demo-"))
    try:
        topology = _prepare(base)
        run_dir = RunDir(topology.run_dir)
        note(f"starting {', '.join(process.name for process in topology.processes())}")
        with exit_on_signals():
            start_detached(topology, die_with_parent=True)
            try:
                outcome = _watch(topology, run_dir, base)
            finally:
                take_down(run_dir)
            levels = compare(LEVELS_JOB, ROWS, note)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    outcome = replace(outcome, checks=outcome.checks | level_checks(levels), levels=levels)
    (_print_json if as_json else _print_tables)(outcome)
    for check in (name for name, holds in outcome.checks.items() if not holds):
        fail(f"demo: {check}: no")
    return EXIT_DONE if outcome.ok else EXIT_FAILED


def level_checks(levels: Mapping[str, RowResult]) -> dict[str, bool]:
    """What must hold of the comparison: checksums, what each level knows (concept C12), what it costs (C14)."""
    ranges = {name: row.knows["sector_range"].verdict for name, row in levels.items()}
    processes = {name for name, row in levels.items() if row.knows["process"].verdict == KNOWN}
    fewer = ratios(levels)["operation/driver"]["traps"]
    return {
        "the checksums of all levels are the host's": not any(row.problems for row in levels.values()),
        "a trap tells no sector range, a driver's request does": ranges
        == {"operation": RECONSTRUCTED, "operation_string": RECONSTRUCTED, "driver": KNOWN, "syscall": KNOWN},
        "only a system call tells the process": processes == {"syscall"},
        f"the driver level needs {FEWER_TRAPS} times fewer traps than one IN a word": fewer >= FEWER_TRAPS,
    }


def _prepare(base: Path) -> Topology:
    """Write the built-in topology and a disk image whose content is known."""
    file = base / "topology.toml"
    file.write_text(default_text(), "utf-8")
    topology = load_topology(file)
    image = base / ".iovirt" / "disk0.img"
    image.parent.mkdir(mode=0o700)
    content = random.Random(SEED).randbytes(JOB_BYTES)  # noqa: S311 - the same on every run, not a secret
    image.write_bytes(content.ljust(16 * JOB_BYTES, b"\0"))
    return topology


def _watch(topology: Topology, run_dir: RunDir, base: Path) -> Outcome:
    """Follow the guest's console to the end of its programs, then compare."""
    for problem in wait_ready(topology):
        raise LocalError(problem, "demo")
    started = time.monotonic()
    text = _follow_console(run_dir, started + TIMEOUT_S)
    job_s = time.monotonic() - started
    status = _settled(run_dir, time.monotonic() + SETTLE_S)
    guest = status["guests"][GUEST]
    image = (base / ".iovirt" / "disk0.img").read_bytes()
    expected = hashlib.sha256(image[:JOB_BYTES]).hexdigest()
    found = _DIGEST.search(text)
    digest = found.group(1) if found else ""
    checks = {
        "the guest's programs ended": _ENDED.decode() in text,
        "the guest's checksum is the host's": digest == expected,
        "the result block was read back": _WRITTEN in text,
        "the result block is in the image": expected.encode() in image[JOB_BYTES : JOB_BYTES + 512],
        "every poke at I/O was refused": _REFUSED in text,
        "guest and hypervisor count the same traps": _counts_agree(guest),
        "every trap was well-formed": not guest["malformed"],
    }
    return Outcome(checks, guest, status["controllers"], expected, digest, job_s)


def _follow_console(run_dir: RunDir, deadline: float) -> str:
    """Show the console line by line until the guest is done or time is up; return all of it."""
    log = run_dir.console_log(GUEST)
    seen = b""
    shown = 0
    while time.monotonic() < deadline:
        seen = log.read_bytes() if log.exists() else b""
        *whole, _ = seen.split(b"\n")
        for line in whole[shown:]:
            print(f"{GUEST} | {printable(line.decode('utf-8', 'replace').rstrip())}", file=sys.stderr, flush=True)
        shown = len(whole)
        if _ENDED in seen:
            break
        time.sleep(_POLL_S)
    return seen.decode("utf-8", "replace").replace("\r", "")


def _settled(run_dir: RunDir, deadline: float) -> dict[str, Any]:
    """The hypervisor's status, once the guest has reported after its last burst of work."""
    while True:
        status = read_status(run_dir).get("hv0")
        content = status.content if status is not None else {}
        guest = content.get("guests", {}).get(GUEST, {})
        if guest.get("state") == "halted" and guest.get("guest_traps", {}).get("port_in") == guest["traps"]["port_in"]:
            return content
        if time.monotonic() > deadline:
            if not guest:
                raise LocalError("the hypervisor says nothing of the guest", "demo", "see 'iovirt doctor'")
            return content
        time.sleep(_POLL_S)


def _counts_agree(guest: dict[str, Any]) -> bool:
    """Concept C10: both sides counted at the same point of the channel."""
    return bool(guest["guest_traps"]) and guest["guest_traps"] == guest["traps_at_report"]


def _print_json(outcome: Outcome) -> None:
    print_json(
        {
            "ok": outcome.ok,
            "checks": outcome.checks,
            "sha256": {"guest": outcome.guest_sha256, "host": outcome.expected_sha256},
            "seconds": round(outcome.job_s, 3),
            "guest": outcome.guest,
            "controllers": outcome.controllers,
            "comparison": comparison_json(outcome.levels, LEVELS_JOB, sha256_of(disk_content(LEVELS_JOB))),
        }
    )


def _print_tables(outcome: Outcome) -> None:
    guest = outcome.guest
    ours, theirs = guest["traps_at_report"], guest["guest_traps"]
    rows = [
        (kind.replace("_", " "), f"{theirs[kind]:,}", f"{count:,}", "yes" if count == theirs[kind] else "NO")
        for kind, count in ours.items()
        if count or theirs[kind]
    ]
    agree = "yes" if _counts_agree(guest) else "NO"
    rows.append(("all", f"{sum(theirs.values()):,}", f"{sum(ours.values()):,}", agree))
    print()
    print_table(("traps", "guest's count", "hypervisor's count", "equal"), rows)
    print()
    print_table(("device", "traps"), [(name, f"{count:,}") for name, count in sorted(guest["touched"].items())])
    print()
    print_table(("what", "how much"), [(name, value) for name, value in _figures(outcome)])
    print()
    print_comparison(outcome.levels, LEVELS_JOB)
    print()
    for name, holds in outcome.checks.items():
        print(f"{'ok ' if holds else 'NO '} {name}")


def _figures(outcome: Outcome) -> list[tuple[str, str]]:
    guest, controllers = outcome.guest, outcome.controllers
    completed = ", ".join(f"{name} {pair['completed']:,}" for name, pair in controllers.items())
    return [
        ("messages guest > hypervisor", f"{guest['messages_in']:,}"),
        ("messages hypervisor > guest", f"{guest['messages_out']:,}"),
        ("controller commands completed", completed),
        ("controller interrupts", f"{sum(pair['interrupts'] for pair in controllers.values()):,}"),
        ("interrupts raised to the CPU", f"{guest['interrupts_raised']:,}"),
        ("interrupts taken by the CPU", f"{guest['interrupts_taken']:,}"),
        ("I/O instructions refused", f"{guest['refused']:,}"),
        ("bytes in by traps", f"{guest['bytes_in']:,}"),
        ("bytes out by traps", f"{guest['bytes_out']:,}"),
        ("bytes read from the disk", f"{guest['disk_bytes_read']:,}"),
        ("bytes written to the disk", f"{guest['disk_bytes_written']:,}"),
        ("seconds", f"{outcome.job_s:.2f}"),
        ("sha256", outcome.guest_sha256[:32] + "..." if outcome.guest_sha256 else "none"),
    ]
