"""From what a topology says of a virtual machine to how its VMM is started on this machine."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.topology.vm_specs import VmSpec
from iovirt_dist.vmm.command import VmmCommand, VmmFiles, find_files
from iovirt_dist.vmm.qemu import qemu_command
from iovirt_dist.vmm.uml import uml_command


def vmm_command(spec: VmSpec, run_dir: Path, files: VmmFiles | None = None) -> VmmCommand:
    """Return how to start the VMM of a guest.

    Args:
        spec: The guest, whose VMM is ours to start.
        run_dir: Where the sockets are.
        files: What it runs; None for what the guest's spec says.

    Raises:
        ImageError: VMM, kernel or initial RAM disk is missing.
        ConfigError: A path cannot be said on the VMM's command line.
    """
    start = qemu_command if spec.vmm == "qemu" else uml_command
    return start(spec, run_dir, files or find_files(spec))
