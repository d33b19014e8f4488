"""The console process: `python -m services.console [NAME]`; the topology is the one of IOVIRT_TOPOLOGY."""

from __future__ import annotations

import asyncio
import os
import sys

from iovirt_dist.runtime.console_process import ConsoleProcess
from iovirt_dist.runtime.service import run_service
from iovirt_dist.topology.selection import select


async def serve(stop: asyncio.Event) -> None:
    """Find out which process this is and run it until `stop`."""
    topology, spec = select("console", sys.argv[1:], os.environ)
    await ConsoleProcess(topology, spec).run(stop)


def main() -> int:
    """Run the process; returns its exit status."""
    return run_service("console", serve)


if __name__ == "__main__":
    sys.exit(main())
