"""The network process: `python -m services.net [NAME]`; the topology is the one of IOVIRT_TOPOLOGY."""

from __future__ import annotations

import asyncio
import os
import sys

from iovirt_dist.runtime.net_process import NetProcess
from iovirt_dist.runtime.service import run_service
from iovirt_dist.topology.selection import select


async def serve(stop: asyncio.Event) -> None:
    """Find out which process this is and run it until `stop`."""
    topology, spec = select("net", sys.argv[1:], os.environ)
    await NetProcess(topology, spec).run(stop)


def main() -> int:
    """Run the process; returns its exit status."""
    return run_service("net", serve)


if __name__ == "__main__":
    sys.exit(main())
