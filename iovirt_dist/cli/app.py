"""The command line's application, and what its commands share: options, and which topology they are about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

import iovirt_dist
from iovirt_dist.topology import ENVIRONMENT_KEY, Topology, load_topology

_TOPOLOGY_HELP = f"Topology file. Default: ${ENVIRONMENT_KEY}, else the built-in topology."

File = Annotated[Path | None, Parameter(name=("--file", "-f"), help=_TOPOLOGY_HELP)]
_RUNNING_HELP = f"Topology file. Default: ${ENVIRONMENT_KEY}, else what is up in ./.iovirt, else the built-in one."
RunningFile = Annotated[Path | None, Parameter(name=("--file", "-f"), help=_RUNNING_HELP)]
LongFile = Annotated[Path | None, Parameter(name="--file", help=_RUNNING_HELP)]
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


def starting_topology(file: Path | None) -> Topology:
    """The topology to start."""
    return load_topology(file or os.environ.get(ENVIRONMENT_KEY) or None)


def running_topology(file: Path | None) -> Topology:
    """The topology to look at: without a file, what is up in this folder's run directory comes before the built-in."""
    topology = starting_topology(file)
    if topology.source is not None:
        return topology
    from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir  # noqa: PLC0415 - keeps --help fast
    from iovirt_dist.runtime.status import read_status_file  # noqa: PLC0415 - as above

    status = read_status_file(RunDir(topology.run_dir).status(SUPERVISOR))
    source = status.content.get("topology") if status is not None and status.alive else None
    return load_topology(source) if source else topology
