"""``iovirt run``: one guest without a topology file, its terminal on this one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from iovirt_dist.cli.adhoc_errors import WHERE, in_options
from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.cli.adhoc_vm import NET_LINES, VMM, vm_fields, with_initrd
from iovirt_dist.cli.launch import start_detached
from iovirt_dist.cli.output import ERROR, EXIT_DONE, EXIT_FAILED, fail
from iovirt_dist.cli.tail import LineTail, last_words
from iovirt_dist.cli.terminal import ConsolePlan, attach, exit_on_signals
from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.guest.script.core import ENDED as SCRIPT_ENDED
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import read_status, read_status_file
from iovirt_dist.runtime.takedown import take_down
from iovirt_dist.topology import Origin, ScriptSpec, Topology, load_topology, topology_from_text

GUEST: Final = "guest"
DEFAULT_IMAGE: Final = "bundled:guestos"

_ORDERLY: Final = ("powered off by ", SCRIPT_ENDED)
"""How the reason of a guest begins that came to its own end; of any other but a program's it is a failure."""

_PROGRAM_END: Final = re.compile(r"exited with status (?P<status>[0-9]+)|killed by signal (?P<signal>[0-9]+)")
"""Reasons of programs (`iovirt_dist.guest.program`)."""

END_OF_TRANSMISSION: Final = b"\x04"
"""Ctrl-D: what a terminal says in place of an end of file (POSIX, "Special Characters")."""


def topology_text(guest: AdHocGuest, run_dir: Path) -> str:
    """Write the topology of one guest; TOML basic strings are JSON strings (TOML 1.0, "String").

    Raises:
        ConfigError: Options contradict each other.
    """
    kind = guest.kind
    lines = ["[topology]", 'name = "run"', f"run_dir = {_toml(str(run_dir))}", "[hypervisor.hv0]"]
    devices = {}
    if not guest.external:
        lines += ["[controller.tty0]", 'kind = "console"']
        devices["virtio_console" if kind == "script" else "console"] = "tty0"
    if guest.disk:
        lines += ["[controller.disk0]", 'kind = "block"', f"image = {_toml(_absolute(guest.disk))}"]
        lines += [f"size = {_toml(guest.disk_size)}"] if guest.disk_size else []
        devices["disk"] = "disk0"
    if guest.net:
        lines += NET_LINES
        devices["net"] = "net0"
    if guest.rng:
        lines += ["[controller.rng0]", 'kind = "rng"']
        devices["rng"] = "rng0"
    lines += [f"[guest.{GUEST}]", f"kind = {_toml(kind)}", 'hypervisor = "hv0"', 'restart = "never"']
    lines += [f"devices.{device} = {_toml(controller)}" for device, controller in devices.items()]
    fields = {"memory": guest.memory, **_fields(guest, kind)}
    lines += [f"{key} = {_toml(value)}" for key, value in fields.items() if value]
    return "\n".join([*lines, *_tables(guest)]) + "\n"


def _fields(guest: AdHocGuest, kind: str) -> dict[str, Any]:
    """The keys of the guest's table."""
    if kind == "program":
        # by name only: the program sees its own name as a shell would give it
        arguments = [Path(guest.program).name, *guest.arguments]
        return {"image": _absolute(guest.program), "arguments": arguments, "abi": guest.abi}
    if kind == "script":
        place, colon, function = guest.script.rpartition(":")
        return {"script": f"{_absolute(place)}{colon}{function}" if place.endswith(".py") else guest.script}
    if kind == "vm":
        return vm_fields(guest)
    image = guest.image or DEFAULT_IMAGE
    return {
        "image": image if image.startswith("bundled:") else _absolute(image),
        "machine": guest.machine,
        "format": guest.image_format,
        "payload": _absolute(guest.payload) if guest.payload else "",
        "command_line": guest.command_line,
        "level": guest.level,
    }


def _tables(guest: AdHocGuest) -> Iterator[str]:
    """The tables below the guest's."""
    for table, option, pairs in (
        ("environment", "--env", [_pair(text, "--env", "=") for text in guest.environment]),
        ("parameters", "--parameter", [_pair(text, "--parameter", "=") for text in guest.parameters]),
        ("files", "--volume", [_pair(text, "--volume", ":") for text in guest.volumes]),
    ):
        if pairs:
            yield f"[guest.{GUEST}.{table}]"
        for left, right in pairs:
            if option == "--parameter":
                yield f"{_toml(left)} = {_toml_value(right)}"
            elif option == "--env":
                yield f"{_toml(left)} = {_toml(right)}"
            else:
                yield f"{_toml(right)} = {_toml(_absolute(left))}"


def _pair(text: str, option: str, separator: str) -> tuple[str, str]:
    left, found, right = text.partition(separator) if separator == "=" else text.rpartition(separator)
    if not found or not left:
        shape = "NAME=VALUE" if separator == "=" else "HERE:THERE"
        raise ConfigError(f'expected {shape}, got "{text}"', f"{WHERE}: {option}")
    return left, right


def _toml_value(text: str) -> str:
    """A value as TOML has it, or the text as a string."""
    try:
        if "\n" not in text and list(tomllib.loads(f"value = {text}")) == ["value"]:
            return text
    except tomllib.TOMLDecodeError:
        pass
    return _toml(text)


def _toml(value: str | int | list[str]) -> str:
    return json.dumps(value)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def ended_reason(run_dir: RunDir) -> str | None:
    """Why the guest is over; None while it runs or starts."""
    statuses = read_status(run_dir)
    for status in (statuses.get(name) for name in (GUEST, VMM)):
        if status is None or not status.alive or status.state != "stopped":
            continue
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
        Exit status: a program's own, 128 and the signal's number if one killed it; else 1 if a process failed, or the
        guest did not come to its own end.

    Raises:
        ConfigError: An option is wrong.
        ImageError: An image is missing.
        LocalError: The processes cannot be started.
    """
    if guest.kind == "program":
        plan = replace(plan, end_of_input=END_OF_TRANSMISSION)
    base = Path(tempfile.mkdtemp(prefix="iovirt-"))
    try:
        if guest.kind == "vm":
            guest = with_initrd(guest, base)
        text = topology_text(guest, base / "run")
        topology_from_text(text, Origin(WHERE, None, base))  # first, so that errors do not name our file
        file = base / "topology.toml"
        file.write_text(text, "utf-8")
        with exit_on_signals():
            return _run(load_topology(file), plan)
    except (ConfigError, ImageError) as error:
        raise in_options(error, guest.kind) from None
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run(topology: Topology, plan: ConsolePlan) -> int:
    run_dir = RunDir(topology.run_dir)
    start_detached(topology, die_with_parent=True)
    try:
        with _sayings(topology, run_dir) as show:
            code = attach(run_dir, topology.terminal(GUEST).terminal, plan, check=lambda: show(ended_reason(run_dir)))
        failed = _failed(run_dir)
        for name in failed:
            fail(last_words(run_dir, name) or f"{name} failed without a word")
        satisfied = plan.expect is not None and code == EXIT_DONE
        if failed or satisfied:
            return EXIT_FAILED if failed else code
        return guest_status(run_dir) or code
    finally:
        take_down(run_dir)


@contextlib.contextmanager
def _sayings(topology: Topology, run_dir: RunDir) -> Iterator[Callable[[str | None], str | None]]:
    """Show what a script says, which is in its log, on stderr; what this gives passes its argument through."""
    if not isinstance(topology.guest(GUEST), ScriptSpec):
        yield lambda reason: reason
        return
    tail = LineTail({GUEST: run_dir.log(GUEST)})

    def show(reason: str | None) -> str | None:
        for line in tail.read():
            if not line.text.startswith(ERROR):  # which ends the run, and is told then
                print(line.text, file=sys.stderr, flush=True)
        return reason

    try:
        yield show
        show(None)
    finally:
        tail.close()


def guest_status(run_dir: RunDir) -> int:
    """Exit status for how the guest ended; 0 also while it runs.

    A program's own status; 128 and the number of the signal that killed it, as shells have it; 1 for a machine that did
    not switch itself off (a triple fault, an error of its vCPU) and for a script that failed.
    """
    status = read_status(run_dir).get(GUEST)
    if status is None or status.state != "stopped" or status.reason.startswith(_ORDERLY):
        return EXIT_DONE
    match = _PROGRAM_END.match(status.reason)
    if match is None:
        return EXIT_FAILED
    return int(match["status"]) & 0xFF if match["status"] else 128 + int(match["signal"])


def _failed(run_dir: RunDir) -> list[str]:
    """Processes that ended by themselves with an error."""
    supervisor = read_status_file(run_dir.status(SUPERVISOR))
    rows = supervisor.content.get("processes", {}) if supervisor is not None else {}
    return [name for name, row in rows.items() if row.get("state") == "ended" and row.get("exit") != "exit status 0"]
