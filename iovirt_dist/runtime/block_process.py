"""The block controller, for a process of its own or a driver domain."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from iovirt_dist.controllers.block.core import BlockAccess, BlockOutcome, ImageGrown
from iovirt_dist.controllers.block.extents import BlockConfig, Durability, Extent
from iovirt_dist.controllers.block.overlay_units import OverlaysAllowed
from iovirt_dist.controllers.block.runner import BlockRunner, open_block
from iovirt_dist.controllers.block.storage import FileStorage
from iovirt_dist.controllers.front import DeviceCore
from iovirt_dist.runtime.controller_process import serve_controller
from iovirt_dist.topology.specs import BlockSpec, Topology


def block_config(topology: Topology, spec: BlockSpec) -> BlockConfig:
    """Translate the topology's words into the controller's."""
    return BlockConfig(
        image=spec.image,
        size_bytes=spec.size_bytes,
        durability=Durability.WRITE_THROUGH if spec.write_through else Durability.WRITE_BACK,
        extents=tuple(Extent(e.name, e.offset_bytes, e.size_bytes, e.read_only) for e in spec.extents),
        read_only=spec.read_only,
        overlays=spec.overlays,
        allowed_overlays=topology.overlays_of(spec.name),
    )


def _allow_many_files() -> None:
    """Raise the limit of open files as far as this user may: each overlay is one (getrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class BlockProcess:
    """A block controller's `iovirt_dist.runtime.device_service.ControllerDevice`, and as a process by itself.

    Args:
        topology: Where everything is.
        spec: Which controller.

    Raises:
        ImageError: The image cannot be used.
        ConfigError: The extents do not fit it.
    """

    def __init__(self, topology: Topology, spec: BlockSpec) -> None:
        config = block_config(topology, spec)
        _allow_many_files()
        self._topology = topology
        self._spec = spec
        self.credits = config.queue_credits
        self._core, self._storage = open_block(config)
        self._deliver: Callable[[BlockOutcome], None] | None = None

    @property
    def core(self) -> DeviceCore[BlockOutcome, BlockAccess]:
        """What decides."""
        return self._core

    def open_hands(self, deliver: Callable[[BlockOutcome], None]) -> BlockRunner:
        """Make what reads and writes the image; on the running loop."""
        self._deliver = deliver
        return BlockRunner(self._storage, deliver, asyncio.get_running_loop().call_soon_threadsafe)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then everything acknowledged is stable and the image is free."""
        await serve_controller(self._topology, self._spec, self, stop)

    def status(self) -> dict[str, Any]:
        """What the device tells of itself, once it has looked whether its image has grown (`iovirt disk resize`)."""
        image = self._storage.image
        if self._deliver is not None and isinstance(image, FileStorage) and image.grown():
            self._deliver(ImageGrown(image.size_bytes))
        core = self._core
        counts = asdict(core.pairs.counts)
        told = {**counts, "syncs": core.syncs, "medium_errors": core.medium_errors, "failed": core.failed}
        told["image_bytes"] = image.size_bytes
        return {**told, "overlays": sorted(core.overlays.open), "overlay_problems": dict(core.overlays.problems)}

    def reload(self, topology: Topology) -> BlockOutcome:
        """Allow the overlays of the guests that there are now; those of others are synced and closed."""
        return OverlaysAllowed(topology.overlays_of(self._spec.name))
