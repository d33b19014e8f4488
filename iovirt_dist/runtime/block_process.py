"""The block controller as a process."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.block.core import BlockAccess, BlockOutcome
from iovirt_dist.controllers.block.extents import BlockConfig, Durability, Extent
from iovirt_dist.controllers.block.runner import BlockRunner, open_block
from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.runtime.controller_process import ControllerProcess
from iovirt_dist.topology.specs import BlockSpec, Topology


def block_config(spec: BlockSpec) -> BlockConfig:
    """Translate the topology's words into the controller's."""
    return BlockConfig(
        image=spec.image,
        size_bytes=spec.size_bytes,
        durability=Durability.WRITE_THROUGH if spec.write_through else Durability.WRITE_BACK,
        extents=tuple(Extent(e.name, e.offset_bytes, e.size_bytes, e.read_only) for e in spec.extents),
        read_only=spec.read_only,
    )


class BlockProcess:
    """Runs a block controller.

    Args:
        topology: Where everything is.
        spec: Which controller.

    Raises:
        ImageError: The image cannot be used.
        ConfigError: The extents do not fit it.
    """

    def __init__(self, topology: Topology, spec: BlockSpec) -> None:
        config = block_config(spec)
        self._process = ControllerProcess(topology, spec, config.queue_credits)
        self._core, self._storage = open_block(config)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then everything acknowledged is stable and the image is free."""
        post = asyncio.get_running_loop().call_soon_threadsafe
        core: DeviceCore[BlockOutcome, BlockAccess] = self._core
        await self._process.serve(stop, core, lambda deliver: BlockRunner(self._storage, deliver, post), self._status)

    def _status(self) -> dict[str, Any]:
        core = self._core
        counts = asdict(core.pairs.counts)
        return {**counts, "syncs": core.syncs, "medium_errors": core.medium_errors, "failed": core.failed}
