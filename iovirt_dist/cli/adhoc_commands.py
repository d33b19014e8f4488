"""``iovirt run --dry-run``: how to start a virtual machine yourself, as a shell script."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from iovirt_dist.cli.adhoc import GUEST, topology_text
from iovirt_dist.cli.adhoc_errors import WHERE, in_options
from iovirt_dist.cli.adhoc_guest import AdHocGuest
from iovirt_dist.cli.adhoc_vm import QUIET, absolute
from iovirt_dist.cli.output import EXIT_DONE
from iovirt_dist.errors import ConfigError, ImageError
from iovirt_dist.topology import Origin, Topology, VmSpec, topology_from_text
from iovirt_dist.vmm.command import VmmCommand, find_files
from iovirt_dist.vmm.start import vmm_command

FOLDER: Final = "iovirt-vm"
"""Where the script puts its files, in the current folder."""


def show_commands(guest: AdHocGuest) -> int:
    """The work of ``iovirt run --dry-run``: print a script that does what the command would have done.

    The topology in it has an external VMM, of which the console is the terminal where it is started.

    Raises:
        ConfigError: It is no virtual machine, or an option is wrong.
        ImageError: VMM or kernel is missing.
    """
    if guest.kind != "vm":
        raise ConfigError(f"--dry-run is for a virtual machine, not for a {guest.kind}", WHERE, "add --qemu or --uml")
    try:
        print(script(guest, Path.cwd() / FOLDER))
    except (ConfigError, ImageError) as error:
        raise in_options(error, guest.kind) from None
    return EXIT_DONE


def script(guest: AdHocGuest, folder: Path) -> str:
    """Return the script; as `show_commands`.

    Args:
        guest: What to run.
        folder: Where its files are to be; need not exist.
    """
    initrd = Path(absolute(guest.initrd) or folder / "initrd")
    command, topology = _command(guest, folder, initrd)
    file = folder / "topology.toml"
    lines = [shlex.join(("mkdir", "-p", str(folder), *map(str, command.folders)))]
    lines += [f"cat > {shlex.quote(str(file))} <<'END'"]
    lines += [topology_text(replace(guest, external=True), topology.run_dir) + "END"]
    if not guest.initrd:
        words = ["iovirt", "initramfs", str(initrd), "--for", guest.vmm]
        lines += [shlex.join([*words, "--kernel", absolute(guest.kernel)] if guest.kernel else words)]
    up, down = ("iovirt", "up", "-d", "-f", str(file)), ("iovirt", "down", "-f", str(file))
    return "\n".join([*lines, f"{shlex.join(up)} && {{", str(command), shlex.join(down), "}"])


def _command(guest: AdHocGuest, folder: Path, initrd: Path) -> tuple[VmmCommand, Topology]:
    """The VMM's command line; an initial RAM disk that the script makes need not be there yet."""
    if not guest.initrd:
        guest = replace(guest, append=guest.append or QUIET)
    text = topology_text(guest, folder / "run")
    topology = topology_from_text(text, Origin(WHERE, None, folder))
    spec = topology.guest(GUEST)
    assert isinstance(spec, VmSpec), "its kind is vm"
    files = replace(find_files(spec), initrd=initrd)
    return vmm_command(spec, topology.run_dir, files), topology
