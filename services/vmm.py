"""The process of a guest's VMM: `python -m services.vmm [NAME]`; the topology is the one of IOVIRT_TOPOLOGY."""

from __future__ import annotations

import asyncio
import os
import sys

from iovirt_dist.runtime.service import run_service
from iovirt_dist.runtime.vmm_keeper import adopt_orphans, end_descendants
from iovirt_dist.runtime.vmm_process import VmmProcess
from iovirt_dist.topology.selection import select


async def serve(stop: asyncio.Event) -> None:
    """Find out which process this is and run it until `stop`."""
    topology, spec = select("vmm", sys.argv[1:], os.environ)
    adopt_orphans()  # of a keeper that was killed
    await VmmProcess(topology, spec).run(stop)


def main() -> int:
    """Run the process; returns its exit status."""
    try:
        return run_service("vmm", serve)
    finally:
        end_descendants()


if __name__ == "__main__":
    sys.exit(main())
