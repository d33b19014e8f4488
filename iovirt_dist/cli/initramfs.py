"""The command ``iovirt initramfs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iovirt_dist.cli.app import app
from iovirt_dist.cli.output import EXIT_DONE, note
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.topology.vm_files import Vmm

_EXAMPLES = """\
Example: iovirt initramfs initrd --for uml
Example: iovirt initramfs initrd --for qemu --add /usr/bin/fio --add job.fio:/etc/job.fio --script job.sh"""


@app.command(help_epilogue=_EXAMPLES)
def initramfs(
    out: Path,
    *,
    vmm: Annotated[Vmm, Parameter(name="--for")] = "qemu",
    kernel: Annotated[Path | None, Parameter(show_default=False)] = None,
    add: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    script: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> int:
    """Write an initial RAM disk for a Linux kernel in a virtual machine: busybox, drivers of our devices, what you add.

    Its shell is on the console. With --script that runs instead. When either ends, the machine is switched off.

    Parameters
    ----------
    out
        File to write.
    vmm
        What runs the kernel.
    kernel
        Whose drivers; vmlinuz-RELEASE. Default: the newest that is installed.
    add
        FILE, which goes to /bin, or HERE:THERE; may be given again. Programs bring their libraries. A word that busybox
        knows means busybox: call programs of such names by their paths.
    script
        File of commands for the shell.
    """
    from iovirt_dist.vmm.initramfs import (  # noqa: PLC0415 - keeps --help fast
        InitramfsPlan,
        kernel_modules,
        write_initramfs,
    )

    if not out.name or out.is_dir():
        raise ConfigError("is a folder", str(out), "name a file")
    try:
        text = script.read_text("utf-8") if script is not None else None
        plan = InitramfsPlan(vmm=vmm, modules=kernel_modules(vmm, kernel), files=dict(map(_placed, add)), script=text)
        scratch = out.with_name(f"{out.name}.tmp")
        try:
            with scratch.open("wb") as file:
                write_initramfs(file, plan)
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"{error.strerror}", str(error.filename)) from None
    except UnicodeDecodeError:
        raise ConfigError("the script is no text", str(script)) from None
    note(f"wrote {out}, {out.stat().st_size >> 10} KiB")
    return EXIT_DONE


def _placed(text: str) -> tuple[str, Path]:
    """Path there and here of one --add."""
    here, colon, there = text.rpartition(":")
    if not colon:
        return f"/bin/{Path(text).name}", Path(text).absolute()
    if not here or not there.startswith("/"):
        raise ConfigError(f'expected FILE or HERE:THERE, got "{text}"', "--add", "THERE begins with '/'")
    return there, Path(here).absolute()
