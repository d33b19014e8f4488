"""What the table of a virtual machine says besides its devices: which VMM, with what, and what that VMM cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import schema
from iovirt_dist.topology.guest_specs import GuestAttributes
from iovirt_dist.topology.scope import Scope
from iovirt_dist.topology.specs import host_folder
from iovirt_dist.topology.vm_specs import VM_DEVICES, VMM_SUFFIX, VmSpec, serial_socket, vm_socket

VM_MEMORY_RANGE_BYTES: Final = (32 << 20, 64 << 30)
"""A kernel with its initial RAM disk needs the least of it; the most is a typing error."""

VM_MEMORY_STEP_BYTES: Final = 1 << 20

_OURS: Final = ("kernel", "initrd", "command_line", "arguments")
"""Keys of what we start, and somebody else does not see."""

_WITHOUT: Final = {
    ("qemu", "virtio_console"): "QEMU has no vhost-user console",
    ("uml", "rng"): "Debian's User-Mode Linux has no virtio-rng driver",
}
"""Devices that a VMM cannot have, and why (QEMU 7.2, user-mode-linux 6.1)."""


def resolve_vm(scope: Scope, group: str, table: schema.VmTable, host: str, common: GuestAttributes) -> VmSpec:
    """Check a virtual machine.

    Args:
        scope: The topology that it belongs to.
        group: The table's name.
        table: As written.
        host: Where its hypervisor is; empty if the topology names no hosts.
        common: What every guest has.

    Raises:
        ConfigError: The VMM cannot do what is asked for; `where` names file and key.
        EndpointError: The path of one of its sockets is too long.
    """
    _check_devices(scope, group, table)
    _check_processors(scope, group, table)
    for key in _OURS:
        if table.vmm == "external" and getattr(table, key):
            where = scope.where("guest", group, key)
            raise ConfigError("an external VMM is started by somebody else, with its own", where, f"remove {key}")
    for key, what, words in (
        ("arguments", "an argument", table.arguments),
        ("command_line", "a kernel's command line", [table.command_line]),
    ):
        if any("\0" in word for word in words):
            where = scope.where("guest", group, key)
            raise ConfigError(f"{what} holds a NUL, which ends a string in memory", where, "remove it")
    name = common["name"]
    if table.vmm != "external":
        scope.claim_name(f"{name}{VMM_SUFFIX}", scope.where("guest", group))
    _check_sockets(host_folder(scope.run_dir, host), name)
    return VmSpec(
        **common,
        vmm=table.vmm,
        cpus=table.cpus,
        queues=table.queues,
        kernel=_path(scope, table.kernel),
        initrd=_path(scope, table.initrd),
        command_line=table.command_line,
        arguments=tuple(table.arguments),
    )


def _check_devices(scope: Scope, group: str, table: schema.VmTable) -> None:
    for (vmm, device), why in _WITHOUT.items():
        if table.vmm == vmm and getattr(table.devices, device):
            where = scope.where("guest", group, "devices", device)
            raise ConfigError(why, where, f"remove devices.{device}, or choose another VMM")


def _check_processors(scope: Scope, group: str, table: schema.VmTable) -> None:
    """User-Mode Linux has one processor; the kernel's driver takes no more queues than there are processors."""
    for key in ("cpus", "queues"):
        count = getattr(table, key)
        if table.vmm == "uml" and count != 1:
            where = scope.where("guest", group, key)
            raise ConfigError(f"User-Mode Linux has one CPU, got {key} = {count}", where, "remove it")


def _check_sockets(run_dir: Path, name: str) -> None:
    serial_socket(run_dir, name)
    for device in VM_DEVICES:
        vm_socket(run_dir, name, device)


def _path(scope: Scope, written: str) -> Path | None:
    return scope.path(written) if written else None
