"""The driver domain: `python -m services.driver_domain [NAME]`; the topology is the one of IOVIRT_TOPOLOGY."""

from __future__ import annotations

import asyncio
import os
import sys

from iovirt_dist.runtime.driver_domain_process import DriverDomainProcess
from iovirt_dist.runtime.service import run_service
from iovirt_dist.topology.selection import select


async def serve(stop: asyncio.Event) -> None:
    """Find out which process this is and run it until `stop`."""
    topology, spec = select("driver_domain", sys.argv[1:], os.environ)
    await DriverDomainProcess(topology, spec).run(stop)


def main() -> int:
    """Run the process; returns its exit status."""
    return run_service("driver_domain", serve)


if __name__ == "__main__":
    sys.exit(main())
