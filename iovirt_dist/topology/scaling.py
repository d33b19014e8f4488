"""How many replicas a running topology has now, and where they are: a file in the run directory that all follow.

The topology file says how many guests a table has when the topology comes up; `iovirt scale` changes that. The file
holds everything that was scaled since, not the last change alone, so that a process that starts anew has it all. Where
guests are is in it as well: a guest that runs stays where it is, whatever else would be placed better now. Each change
raises the revision. On a topology with several hosts each host has the file in its own run directory. It goes when the
topology goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

MAX_REPLICAS: Final = 1024
"""Most replicas of a guest table, as of a topology file's ``count``."""

MAX_SCALING_BYTES: Final = 1 << 20
"""A longer file is not ours."""

Replicas = Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)]
Name = Annotated[str, msgspec.Meta(max_length=64)]
Digest = Annotated[str, msgspec.Meta(max_length=64)]
Revision = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the file.

    Attributes:
        revision: How often it was changed; 0 before the first time.
        digest: Of the topology file that it is about, see `Topology.digest`.
        counts: Replicas by guest table, of those tables that were scaled.
        places: Hypervisors by guest; of guests that are not there any more it says nothing.
    """

    revision: Revision = 0
    digest: Digest = ""
    counts: dict[Name, Replicas] = {}
    places: dict[Name, Name] = {}


NOT_SCALED: Final = Scaling()


def scaling_path(run_dir: Path) -> Path:
    """Path of the file in a run directory."""
    return run_dir / "scale.json"


def read_scaling(run_dir: Path) -> Scaling:
    """Read the file; `NOT_SCALED` if it is absent or no such file."""
    try:
        with scaling_path(run_dir).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_SCALING_BYTES), type=Scaling)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return NOT_SCALED
