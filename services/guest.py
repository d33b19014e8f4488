"""The guest process: `python -m services.guest [NAME]`; the topology is the one of IOVIRT_TOPOLOGY."""

from __future__ import annotations

import asyncio
import os
import sys

from iovirt_dist.runtime.service import run_service
from iovirt_dist.topology.selection import select
from iovirt_dist.topology.specs import NbdSpec, ScriptSpec, VmSpec


async def serve(stop: asyncio.Event) -> None:
    """Find out which process this is and run it until `stop`."""
    topology, spec = select("guest", sys.argv[1:], os.environ)
    if isinstance(spec, ScriptSpec):
        from iovirt_dist.runtime.script_process import ScriptProcess  # noqa: PLC0415 - needs no CPU engine: 20 MiB

        await ScriptProcess(topology, spec).run(stop)
    elif isinstance(spec, VmSpec):
        from iovirt_dist.runtime.vm_process import VmProcess  # noqa: PLC0415 - as above

        await VmProcess(topology, spec).run(stop)
    elif isinstance(spec, NbdSpec):
        from iovirt_dist.runtime.nbd_process import NbdProcess  # noqa: PLC0415 - as above

        await NbdProcess(topology, spec).run(stop)
    else:
        from iovirt_dist.runtime.guest_process import GuestProcess  # noqa: PLC0415 - as above

        await GuestProcess(topology, spec).run(stop)


def main() -> int:
    """Run the process; returns its exit status."""
    return run_service("guest", serve)


if __name__ == "__main__":
    sys.exit(main())
