"""``iovirt run``: one guest without a topology file, its terminal on this one."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.cli.launch import start_detached
from iovirt_dist.cli.output import EXIT_DONE, EXIT_FAILED, fail
from iovirt_dist.cli.tail import last_words
from iovirt_dist.cli.terminal import ConsolePlan, attach, exit_on_signals
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Origin, Topology, load_topology, topology_from_text

GUEST: Final = "guest"

_ORDERLY: Final = "powered off by "
"""How the reason of a guest begins that switched itself off (`iovirt_dist.guest.core`); any other is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdHocGuest:
    """What the options of ``iovirt run`` say; empty text means the topology's default.

    Attributes:
        machine: ``pc`` or ``virt``.
        image: ``bundled:NAME`` or a file.
        image_format: ``auto``, ``elf``, ``multiboot``, ``flat`` or ``rom``.
        payload: Second image.
        memory: RAM size.
        command_line: For the kernel.
        disk: Image file; empty for no disk.
        disk_size: Size of a disk image that is made anew.
    """

    machine: str
    image: str
    image_format: str = "auto"
    payload: str = ""
    memory: str = "32MiB"
    command_line: str = ""
    disk: str = ""
    disk_size: str = ""


def topology_text(guest: AdHocGuest, run_dir: Path) -> str:
    """Write the topology of one guest; TOML basic strings are JSON strings (TOML 1.0, "String")."""
    quote = json.dumps
    image = guest.image if guest.image.startswith("bundled:") else str(Path(guest.image).expanduser().absolute())
    lines = ["[topology]", 'name = "run"', f"run_dir = {quote(str(run_dir))}", "[hypervisor.hv0]"]
    lines += ["[controller.tty0]", 'kind = "console"']
    if guest.disk:
        disk = str(Path(guest.disk).expanduser().absolute())
        lines += ["[controller.disk0]", 'kind = "block"', f"image = {quote(disk)}"]
        lines += [f"size = {quote(guest.disk_size)}"] if guest.disk_size else []
    lines += [f"[guest.{GUEST}]", 'kind = "machine"', 'hypervisor = "hv0"', 'restart = "never"']
    lines += ['devices.console = "tty0"'] + (['devices.disk = "disk0"'] if guest.disk else [])
    fields = {"machine": guest.machine, "image": image, "format": guest.image_format, "memory": guest.memory}
    fields["command_line"] = guest.command_line
    if guest.payload:
        fields["payload"] = str(Path(guest.payload).expanduser().absolute())
    return "\n".join([*lines, *(f"{key} = {quote(value)}" for key, value in fields.items())]) + "\n"


def ended_reason(run_dir: RunDir) -> str | None:
    """Why the guest is over; None while it runs or starts."""
    status = read_status(run_dir).get(GUEST)
    if status is not None and status.alive and status.state == "stopped":
        return f"the guest stopped: {status.reason}" if status.reason else "the guest stopped"
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    if supervisor is None or not supervisor.alive:
        return None if run_dir.is_locked() else "the processes are gone"
    rows: dict[str, dict[str, str]] = supervisor.content.get("processes", {})
    ended = [f"{name} ended ({row['exit']})" for name, row in rows.items() if row.get("state") == "ended"]
    return ended[0] if ended else None


def run_guest(guest: AdHocGuest, plan: ConsolePlan) -> int:
    """Run one guest until it stops, the plan ends or Ctrl-]; nothing of it stays but its disk image.

    Args:
        guest: What to run.
        plan: What its console does.

    Returns:
        Exit status: 1 also if a process failed, or the guest stopped otherwise than by switching itself off.

    Raises:
        ConfigError: An option is wrong.
        ImageError: An image is missing.
        LocalError: The processes cannot be started.
    """
    base = Path(tempfile.mkdtemp(prefix="iovirt-"))
    try:
        text = topology_text(guest, base / "run")
        topology_from_text(text, Origin("iovirt run", None, base))  # first, so that errors do not name our file
        file = base / "topology.toml"
        file.write_text(text, "utf-8")
        with exit_on_signals():
            return _run(load_topology(file), plan)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run(topology: Topology, plan: ConsolePlan) -> int:
    run_dir = RunDir(topology.run_dir)
    start_detached(topology, die_with_parent=True)
    try:
        code = attach(run_dir, GUEST, plan, check=lambda: ended_reason(run_dir))
        failed = _failed(run_dir)
        for name in failed:
            fail(last_words(run_dir, name) or f"{name} failed without a word")
        satisfied = plan.expect is not None and code == EXIT_DONE
        return EXIT_FAILED if failed or (guest_failed(run_dir) and not satisfied) else code
    finally:
        take_down(run_dir)


def guest_failed(run_dir: RunDir) -> bool:
    """Whether the guest is over without having switched itself off: a triple fault, an error of its vCPU."""
    status = read_status(run_dir).get(GUEST)
    return status is not None and status.state == "stopped" and not status.reason.startswith(_ORDERLY)


def _failed(run_dir: RunDir) -> list[str]:
    """Processes that ended by themselves with an error."""
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    rows = supervisor.content.get("processes", {}) if supervisor is not None else {}
    return [name for name, row in rows.items() if row.get("state") == "ended" and row.get("exit") != "exit status 0"]
