"""``iovirt run`` of virtual machines: their keys, and the initial RAM disk that they get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.errors import LocalError
from iovirt_dist.topology.vm_specs import VMM_SUFFIX
from iovirt_dist.vmm.initramfs import InitramfsPlan, kernel_modules, write_initramfs

VMM: Final = f"guest{VMM_SUFFIX}"
"""Process of the VMM of the guest."""

NET_LINES: Final = (
    *("[controller.net0]", 'kind = "net"'),
    *("[controller.net0.responder]", 'address = "10.0.0.1/24"', 'dhcp = "10.0.0.100-10.0.0.199"'),
)
"""A switch with a host to talk to."""

QUIET: Final = "quiet"
"""A kernel's messages at the speed of a serial line take half of the boot, if nobody has asked for them."""


def vm_fields(guest: AdHocGuest) -> dict[str, Any]:
    """The keys of a virtual machine's table."""
    if guest.external:
        return {"vmm": "external"}
    return {
        "vmm": guest.vmm,
        "kernel": absolute(guest.kernel),
        "initrd": absolute(guest.initrd),
        "command_line": guest.append,
        "cpus": guest.cpus,
    }


def with_initrd(guest: AdHocGuest, folder: Path) -> AdHocGuest:
    """Return the guest with an initial RAM disk: one that is made in `folder` if it has none.

    Raises:
        ImageError: Something that belongs into it is missing.
        LocalError: There is no room for it.
    """
    if guest.initrd:
        return guest
    path = folder / "initrd"
    modules = kernel_modules(guest.vmm, Path(absolute(guest.kernel)) if guest.kernel else None)
    try:
        with path.open("wb") as file:
            write_initramfs(file, InitramfsPlan(vmm=guest.vmm, modules=modules))
    except OSError as error:
        raise LocalError(f"cannot be written: {error.strerror}", str(path), "set TMPDIR") from None
    return replace(guest, initrd=str(path), append=guest.append or QUIET)


def absolute(path: str) -> str:
    """A path as a topology needs it, in whatever folder that is; nothing stays nothing."""
    return str(Path(path).expanduser().absolute()) if path else ""
