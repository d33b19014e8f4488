"""The command line's application, and what its commands share: options, and which topology they are about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

import iovirt_dist
from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import ENVIRONMENT_KEY, Topology, load_topology
from iovirt_dist.topology.load import HOST_KEY, host_part, load_running
from iovirt_dist.topology.specs import AnySpec

_TOPOLOGY_HELP = f"Topology file. Default: ${ENVIRONMENT_KEY}, else the built-in topology."

File = Annotated[Path | None, Parameter(name=("--file", "-f"), help=_TOPOLOGY_HELP)]
_RUNNING_HELP = f"Topology file. Default: ${ENVIRONMENT_KEY}, else what is up in ./.iovirt, else the built-in one."
RunningFile = Annotated[Path | None, Parameter(name=("--file", "-f"), help=_RUNNING_HELP)]
LongFile = Annotated[Path | None, Parameter(name="--file", help=_RUNNING_HELP)]
Host = Annotated[
    str, Parameter(show_default=False, help=f"Which host's part. Default: ${HOST_KEY}, else the topology's only one.")
]
Json = Annotated[
    bool, Parameter(name="--json", negative=(), show_default=False, help="Print one JSON object on stdout.")
]
Expect = Annotated[
    str, Parameter(show_default=False, help="Exit with 0 once the output matches this regular expression.")
]
Text = Annotated[str, Parameter(show_default=False)]
Timeout = Annotated[
    float | None,
    Parameter(
        help="Seconds after which to end: with 1 if a pattern was waited for, else with 0.", validator=Number(gte=0)
    ),
]

app = App(
    name="iovirt",
    help="Run guests, hypervisors and device controllers as processes.",
    version=iovirt_dist.__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


def _host(host: str) -> str:
    return host or os.environ.get(HOST_KEY, "")


def starting_topology(file: Path | None, host: str = "") -> Topology:
    """The topology to start, or a host's part of it: of the one that is named, or of the only one."""
    return host_part(load_topology(file or os.environ.get(ENVIRONMENT_KEY) or None), _host(host))


def running_topology(file: Path | None, host: str = "") -> Topology:
    """The topology to look at, as it was scaled, or a host's part of it.

    Without a file, what is up in this folder's run directory comes before the built-in topology.
    """
    written = file or os.environ.get(ENVIRONMENT_KEY) or None
    if written is not None:
        return load_running(written, _host(host))
    from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.runtime.status import read_status_file  # noqa: PLC0415 - as above

    run_dir = load_topology().run_dir
    for folder in (run_dir, *sorted(path.parent.parent for path in run_dir.glob(f"*/status/{SUPERVISOR}.json"))):
        status = read_status_file(RunDir(folder).status(SUPERVISOR))
        if status is not None and status.alive:
            written = status.content.get("topology") or None
            break
    return load_running(written, _host(host))


def local_part(topology: Topology, process: AnySpec) -> Topology:
    """The part of the host that a process is on, whose files a command needs.

    Raises:
        ConfigError: Another host was chosen.
    """
    host = topology.host_of(process)
    if topology.host and topology.host != host:
        what = f"'{process.name}' is on host '{host}', not on '{topology.host}'"
        raise ConfigError(what, topology.label, f"say --host {host}, on that machine")
    return topology.at(host) if host and not topology.host else topology


def need_host(topology: Topology) -> Topology:
    """Refuse several hosts of which none was chosen: the command is about one host's files.

    Raises:
        ConfigError: Say which one.
    """
    if len(topology.hosts) > 1 and not topology.host:
        raise ConfigError("which host?", topology.label, f"say --host: {', '.join(topology.hosts)}")
    return topology
